"""Every run says which way its work takes, in its log and in its journal."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from smalti.engine import paths
from smalti.engine.paths import detours, line_of, paths_of, told_before
from smalti.engine.settings import EngineSettings
from smalti.nn import _triton_ready, group_norm
from tests.engine.toys import tiny_model, tiny_trainer

CPU = torch.device("cpu")


def of(**settings: Any) -> dict[str, str]:
    made = EngineSettings(max_steps=1, **settings)
    memory = torch.channels_last if made.channels_last is True else torch.contiguous_format
    return paths_of(tiny_model("codes"), made, CPU, memory, {"generator": None, "discriminator": "it waits"})


def test_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "has_bf16", lambda: True)
    assert of() == {
        "device": "cpu",
        "precision": "fp32",
        "frozen networks": "float32 weights",
        "memory format": "contiguous",
        "compiled": "nothing",
        "soft assignment, 4 channels": "eager",
        "group norm": "torch",
        "graphs": "off",
    }
    changed = of(precision="bf16", frozen="auto", channels_last=True, compile=("encoder", "decoder"), graphs="auto")
    assert {name: how for name, how in changed.items() if of()[name] != how} if "graphs" in changed else True
    assert changed["precision"] == "bf16"
    assert changed["frozen networks"] == "bf16"
    assert changed["memory format"] == "channels_last"
    assert changed["compiled"] == "encoder, decoder"
    assert changed["graphs of the generator"] == "auto"
    assert changed["graphs of the discriminator"] == "off (it waits)"
    assert of(frozen="auto")["frozen networks"] == "float32 weights"


def test_bf16_that_a_cpu_lacks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(paths.has_bf16(), bool)
    monkeypatch.setattr(paths, "has_bf16", lambda: False)
    assert of(precision="bf16")["precision"].startswith("bf16 (emulated")
    assert of()["precision"] == "fp32"


def test_a_slow_way_on_a_gpu_is_warned_of_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_triton_ready, "is_gpu", lambda device: True)
    monkeypatch.setattr(_triton_ready, "_why_not_at_all", lambda work, device: "triton is not installed")
    monkeypatch.setattr(group_norm, "_why_not", lambda device: "a trial gave wrong numbers")
    found = of(channels_last=True)
    assert found["soft assignment, 4 channels"] == "eager (triton is not installed)"
    assert found["group norm"] == "torch (a trial gave wrong numbers)"
    assert of()["group norm"] == "torch (images are contiguous)"
    assert of(precision="fp64", channels_last=True)["group norm"] == "torch (the kernel has no float64)"
    cuda = torch.device("cuda")
    assert detours(found, CPU) == []
    assert detours(found, cuda) == [
        "soft assignment, 4 channels: eager (triton is not installed), where a GPU has something faster",
        "group norm: torch (a trial gave wrong numbers), where a GPU has something faster",
    ]
    assert detours(of(graphs="auto"), cuda)[-1].startswith("graphs of the discriminator: off (it waits)")
    monkeypatch.setattr(group_norm, "_why_not", lambda device: None)
    assert of(channels_last=True)["group norm"] == "triton"


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_line_is_in_the_first_record_and_a_resumed_run_that_goes_another_way_says_so(tmp_path: Path) -> None:
    tiny_trainer(tmp_path / "run", max_steps=2).run()
    found = records(tmp_path / "run")
    assert [record["step"] for record in found if "paths" in record] == [1]
    assert found[0]["paths"] == line_of(of()) == told_before(tmp_path / "run" / "metrics.jsonl")
    same = tiny_trainer(tmp_path / "run", max_steps=3)
    same.run(resume=True)
    assert not [record for record in records(tmp_path / "run") if "warning" in record]
    other = tiny_trainer(tmp_path / "run", max_steps=4, graphs="auto")
    other.run(resume=True)
    told = [record["warning"] for record in records(tmp_path / "run") if "warning" in record]
    assert len(told) == 1
    assert "the run goes on another way" in told[0]
    assert "graphs of the generator: off (no CUDA: the run is on cpu); " in told[0]


def test_a_journal_that_cannot_be_read_tells_nothing(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert told_before(path) is None
    path.write_text('{"step": 1}\n')
    assert told_before(path) is None
    path.write_text('{"step": 1, "paths": ')
    assert told_before(path) is None
