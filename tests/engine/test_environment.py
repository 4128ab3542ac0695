"""A run folder says where the run computed, and where it went on."""

import json
from pathlib import Path
from typing import Any

import torch

from smalti import __version__
from smalti.engine.environment import FILE, note
from tests.engine.toys import tiny_trainer


def noted(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / FILE).read_text())


def test_a_run_says_where_it_computes(tmp_path: Path) -> None:
    tiny_trainer(tmp_path / "run", max_steps=1).run()
    (entry,) = noted(tmp_path / "run")
    assert (entry["step"], entry["smalti"], entry["torch"]) == (0, __version__, torch.__version__)
    assert entry["device"] == "cpu"
    assert entry["processes"] == 1


def test_only_another_place_is_added(tmp_path: Path) -> None:
    here, there = {"device": "cpu", "torch": "2"}, {"device": "cuda: X", "torch": "2"}
    for step, around in ((0, here), (4, here), (6, there), (8, there), (9, here)):
        note(tmp_path, step, around)
    assert noted(tmp_path) == [{"step": 0, **here}, {"step": 6, **there}, {"step": 9, **here}]
    note(tmp_path, 6, here)  # an earlier checkpoint: what came later did not happen
    assert noted(tmp_path) == [{"step": 0, **here}]
    note(tmp_path, 0, there)
    assert noted(tmp_path) == [{"step": 0, **there}]


def test_a_damaged_note_stops_nobody(tmp_path: Path) -> None:
    for damaged in ("", "{", "[1, {}]", "{}"):
        (tmp_path / FILE).write_text(damaged)
        note(tmp_path, 5, {"device": "cpu"})
        assert noted(tmp_path) == [{"step": 5, "device": "cpu"}]
