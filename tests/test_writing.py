"""Files have the permissions of the user's umask and are whole; JSON has no word that JSON does not know."""

import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from smalti.cli._files import write_npz
from smalti.data.grid import save_grid
from smalti.engine.checkpoint import Checkpoint, CheckpointFolder
from smalti.engine.run_folder import RunFolder
from smalti.interop._files import write_state
from smalti.writing import to_json, whole, write_whole
from tests.engine.toys import tiny_model

PACKAGE = Path(__file__).parent.parent / "smalti"
# Options of a model are code's own values, an infinite one among them; conversion compares texts and protocols hash
# them, neither writes any.
OWN_WORDS = {"writing.py", "models/_pretrained.py", "interop/conversion.py", "evaluation/protocol.py"}


@pytest.fixture(params=[0o022, 0o002, 0o077, 0o027], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    mask: int = request.param
    former = os.umask(mask)
    yield mask
    os.umask(former)


def test_every_writer_leaves_permissions_to_the_umask(tmp_path: Path, umask: int) -> None:
    weights = {"w": torch.zeros(2)}
    run = RunFolder(tmp_path / "run")
    run.claim({"seed": 0}, resume=False)
    run.write_recipe({"seed": 0})
    run.release()
    run.save_model(tiny_model())
    run.write_evaluation({"psnr": 1.0})
    CheckpointFolder(run.checkpoints).save(Checkpoint(step=1, networks={"generator": weights}, state={}))
    write_state(tmp_path / "exported.safetensors", weights, "model")
    write_state(tmp_path / "exported.pt", weights, "model")
    write_npz(tmp_path / "tokens.npz", [("a", np.zeros(2))])
    save_grid(tmp_path / "run" / "samples" / "1.png", torch.zeros(1, 3, 4, 4), columns=1)
    entries = list(tmp_path.rglob("*"))
    assert len([entry for entry in entries if entry.is_file()]) == 12
    modes = {entry.relative_to(tmp_path): stat.S_IMODE(entry.stat().st_mode) for entry in entries}
    expected = {entry.relative_to(tmp_path): (0o777 if entry.is_dir() else 0o666) & ~umask for entry in entries}
    assert modes == expected


def test_file_that_was_there_stays_if_its_successor_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_whole(path, "first")
    with pytest.raises(OSError, match="No space"), whole(path) as unfinished:  # noqa: PT012
        save_file({"w": torch.zeros(2)}, unfinished)
        raise OSError(28, "No space left on device")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_numbers_that_are_not_finite_are_null_at_every_depth(tmp_path: Path) -> None:
    value = {"psnr": math.inf, "objective": {"total": math.nan}, "images": [{"lpips": -math.inf}, (math.nan, 0.5)]}
    run = RunFolder(tmp_path)
    run.write_evaluation(value)
    expected = {"psnr": None, "objective": {"total": None}, "images": [{"lpips": None}, [None, 0.5]]}
    assert json.loads(run.evaluation.read_text(), parse_constant=pytest.fail) == expected
    assert json.loads(to_json(value, indent=None), parse_constant=pytest.fail) == expected


def test_one_function_writes_all_json() -> None:
    writers = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "json.dump" in path.read_text(encoding="utf-8")
    }
    assert writers == OWN_WORDS
