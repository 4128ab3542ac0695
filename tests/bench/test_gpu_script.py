"""The script of a GPU's figures: what it would run, and the whole of it, small, on a CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import PARTS, environment, main, run
from benchmarks.gpu_parts import STEPS, teachers
from benchmarks.plain_vit import PlainViT

ROOT = Path(__file__).parents[2]


def test_the_parts_fit_six_minutes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--dry-run", "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(PARTS)
    assert all("-m benchmarks.gpu_parts" in line for line in lines)
    assert not (tmp_path / "out").exists()
    assert gpu.DEADLINE <= 355
    assert sum(part.kept for part in PARTS) <= gpu.DEADLINE  # the last one gets its share however long the others take
    assert {part.name for part in PARTS} >= set(STEPS)


def test_a_part_that_takes_too_long_is_stopped_and_one_that_fails_says_why(tmp_path: Path) -> None:
    part = PARTS[0]
    waits = [sys.executable, "-c", "import time; print('so far', flush=True); time.sleep(60)"]
    outcome = run(part, waits, tmp_path / "log", 2.0, environment(None))
    assert outcome["ended"] == "stopped after 2 s"
    assert outcome["last_lines"] == ["so far"]
    fails = [sys.executable, "-c", "raise SystemExit('no such card')"]
    outcome = run(part, fails, tmp_path / "log", 60.0, environment(None))
    assert outcome["ended"] == "exit code 1"
    assert outcome["last_lines"] == ["no such card"]


def test_what_the_machine_lacks_comes_last_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert environment(tmp_path)["PYTHONPATH"].split(":") == [str(ROOT), str(tmp_path)]


def test_a_machine_without_a_gpu_is_told_so(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "benchmarks.gpu_parts", "roofs", "--out", str(tmp_path / "found.json")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, env=environment(None) | HIDDEN)
    assert done.returncode == 1
    assert done.stderr.strip() == "torch sees no GPU here: --device cpu --tiny tries the script without one"


HIDDEN = {"CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.parametrize("tiny", [True, False])
def test_the_recipe_of_the_steps_can_be_had_without_transformers(tiny: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from smalti.assembly.recipe import load_recipe

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    name = "tiny-fqgan-triple-f16" if tiny else "fqgan-triple-f16"
    recipe = load_recipe(name, [*teachers(tiny), "engine.frozen=auto", "engine.compile=[encoder, decoder]"])
    assert {spec.target for spec in recipe.teachers.values()} == {PlainViT}


def test_the_recipe_of_the_steps_downloads_nothing() -> None:
    from smalti.assembly.recipe import load_recipe

    recipe = load_recipe("fqgan-triple-f16", teachers(tiny=False))
    assert all(spec.arguments["weights"] == "random" for spec in recipe.teachers.values())
    assert recipe.terms["generator"]["perceptual"].arguments["extractor"].arguments["weights"] == "random"


def test_the_stand_in_of_a_teacher_gives_what_a_teacher_gives() -> None:
    network = PlainViT(width=32, layers=1, size=32)
    network.narrow()
    (feature,) = network(torch.rand(2, 3, 48, 48))
    assert (feature.shape, feature.dtype) == ((2, 32), torch.float32)
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_whole_script_runs_on_a_cpu(tmp_path: Path) -> None:
    words = ["-m", "benchmarks.gpu", "--device", "cpu", "--tiny", "--slack", "4", "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results) == [part.name for part in PARTS]
    assert {result["ended"] for result in results.values()} == {"done"}
    table = (tmp_path / "out" / "table.md").read_text()
    for row in ("| shipped |", "| compiled |", "| entropy, d 256 |", "| nearest code, d 8 |", "| graphs auto |"):
        assert row in table
    assert "nan" not in table
    assert " 0 failed." in table
