"""``smalti train``: what is printed, what is where, and how a run goes on."""

import json
from pathlib import Path

import pytest

import smalti
from smalti.registry import UserError
from tests.cli.conftest import TINY, Verb


def test_train_leaves_a_run_folder_and_says_where_everything_is(smalti_cli: Verb, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = smalti_cli("train", TINY, "--out", out, "--set", "engine.max_steps=2")
    assert result.exit_code == 0, result.output
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines() if str(tmp_path) in line)
    assert {"page", "curves", "pictures", "model", "numbers"} == set(lines)
    assert all(Path(path).exists() for path in lines.values())
    assert "generator updates" in result.stdout
    assert "step 2/2" in result.stderr
    assert smalti.load(out).factor == 4


def test_train_prints_json_for_programs(smalti_cli: Verb, tmp_path: Path) -> None:
    result = smalti_cli("train", TINY, "--out", tmp_path / "run", "--set", "engine.max_steps=1", "--json")
    found = json.loads(result.stdout)
    assert found["step"] == 1
    assert found["finished"]
    assert found["evaluation"] == json.loads((tmp_path / "run" / "evaluation.json").read_text())


def test_train_resumes_where_the_run_was_left(smalti_cli: Verb, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert smalti_cli("train", TINY, "--out", out, "--set", "engine.max_steps=2").exit_code == 0
    result = smalti_cli("train", TINY, "--out", out, "--resume", "--json")
    assert json.loads(result.stdout)["step"] == 4
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))


def test_train_on_a_folder_of_images(smalti_cli: Verb, tmp_path: Path, photos: Path) -> None:
    result = smalti_cli(
        "train", TINY, "--data", photos, "--out", tmp_path / "run", "--set", "engine.max_steps=1", "--json"
    )
    assert result.exit_code == 0, result.output
    assert str(photos) in (tmp_path / "run" / "recipe.yaml").read_text()


def test_train_resumes_on_changed_images_only_if_told_so(smalti_cli: Verb, tmp_path: Path, photos: Path) -> None:
    command = ["train", TINY, "--data", photos, "--out", tmp_path / "run", "--json", "--set"]
    assert smalti_cli(*command, "engine.max_steps=1").exit_code == 0
    (photos / "a.png").rename(photos / "c.png")
    refused = smalti_cli(*command, "engine.max_steps=2", "--resume")
    assert refused.exit_code == 2
    assert refused.stdout == ""
    assert "data.source: images: 1 renamed (a.png -> c.png)" in refused.stderr
    assert "--allow-changed-data" in refused.stderr
    goes_on = smalti_cli(*command, "engine.max_steps=2", "--resume", "--allow-changed-data")
    assert json.loads(goes_on.stdout)["step"] == 2
    assert "1 renamed (a.png -> c.png)" in goes_on.stderr
    assert smalti_cli(*command, "engine.max_steps=3", "--allow-changed-data").exit_code == 2
    assert smalti_cli(*command, "engine.max_steps=3", "--resume").exit_code == 0


def test_dry_run_prints_a_table_and_writes_nothing(
    smalti_cli: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = smalti_cli("train", TINY, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "generator.encoder" in result.stdout
    assert "peak memory" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_run_folder_is_named_after_the_recipe(
    smalti_cli: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert smalti_cli("train", TINY, "--set", "engine.max_steps=1", "--json").exit_code == 0
    assert (tmp_path / "runs" / "tiny" / "evaluation.json").is_file()


def test_a_report_that_cannot_be_drawn_does_not_spoil_the_run(
    smalti_cli: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> list[Path]:
        raise UserError("the report needs jinja2: pip install 'smalti[report]'")

    monkeypatch.setattr("smalti.report.report", refuse)
    result = smalti_cli("train", TINY, "--out", tmp_path / "run", "--set", "engine.max_steps=1")
    assert result.exit_code == 0
    assert "no report: the report needs jinja2" in result.stderr
    assert "curves" not in result.stdout
