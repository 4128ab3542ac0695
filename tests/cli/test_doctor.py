"""``smalti doctor``: a run by its folder, a recipe by a trial."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smalti.cli._app import app
from smalti.cli.doctor import FOUND
from smalti.diagnosis import FILE
from smalti.diagnosis.rules import all_rules
from smalti.report import report
from tests.cli.conftest import TINY, Verb
from tests.diagnosis.runs import D, log_of

KL = Path(__file__).parents[1] / "zoo" / "bases" / "kl.yaml"
TRIAL = ["--recipe", KL, "--set", "objective.generator.kl.weight=10", "--set", "data.batch_size=4", "--steps", "30"]


@pytest.fixture
def sick(tmp_path: Path) -> Path:
    """A run folder with nothing but a log, of a run whose discriminator was dead for a while, and deaf to the end."""
    folder = tmp_path / "sick"
    folder.mkdir()
    changes = {f"{D}critic/slope_max": lambda step: 0.0 if step < 100 else 1.0, "data_wait": 0.8}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in log_of(changes)))
    return folder


def test_healthy_run_is_said_to_be_so(smalti_cli: Verb, trained: Path) -> None:
    result = smalti_cli("doctor", trained, "--strict")
    assert (result.exit_code, result.stdout) == (0, "nothing found\n")


def test_findings_have_numbers_causes_and_options(smalti_cli: Verb, sick: Path) -> None:
    result = smalti_cli("doctor", sick)
    assert result.exit_code == 0
    text = result.stdout
    assert "data-limited, step 50: share of time waiting for data 0.8" in text
    assert "discriminator-dead (discriminator), step 40, over since step 120" in text
    assert "data.workers" in text
    assert "docs/doctor.md#data-limited" in text
    found = json.loads(smalti_cli("doctor", sick, "--json").stdout)
    assert {finding["id"] for finding in found["findings"]} == {"data-limited", "discriminator-dead"}
    assert found["standing"] == 1
    assert not (sick / FILE).exists()  # looking writes nothing


def test_strict_fails_as_long_as_something_stands(sick: Path) -> None:
    def code() -> int:
        return CliRunner().invoke(app, ["doctor", str(sick), "--strict"]).exit_code

    assert code() == FOUND == 3
    lines = (sick / "metrics.jsonl").read_text().replace('"data_wait": 0.8', '"data_wait": 0.1')
    (sick / "metrics.jsonl").write_text(lines)
    assert code() == 0  # what is left is over


def test_run_that_goes_on_is_read_up_to_its_last_whole_line(smalti_cli: Verb, sick: Path) -> None:
    with (sick / "metrics.jsonl").open("a") as file:
        file.write('{"step": 210, "train/gen')
    assert "data-limited" in smalti_cli("doctor", sick).stdout


def title_of(rule: str) -> str:
    return f"<h3>{next(found.title for found in all_rules() if found.id == rule)}"


def test_page_begins_with_the_diagnosis(sick: Path, trained: Path, tmp_path: Path) -> None:
    report(sick)
    page = (sick / "report" / "index.html").read_text()
    assert 0 < page.index('id="diagnosis"') < page.index(title_of("data-limited")) < page.index('id="result"')
    shutil.copytree(trained, tmp_path / "copy")
    report(tmp_path / "copy")
    page = (tmp_path / "copy" / "report" / "index.html").read_text()
    assert 0 < page.index('id="result"') < page.index("Nothing was found.")


def test_recipe_is_tried_somewhere_else_and_what_was_not_seen_is_said(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setenv("TMPDIR", str(tmp_path))
        result = CliRunner().invoke(app, ["doctor", *map(str, TRIAL), "--strict"])
    assert result.exit_code == FOUND, result.stderr
    assert "posterior-collapse" in result.stdout
    assert "not examined: held-out images are not measured (overfit)" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_trial_keeps_the_schedules_of_the_whole_recipe(smalti_cli: Verb, photos: Path) -> None:
    late = ["--set", "objective.generator.commitment.start=50"]
    result = smalti_cli("doctor", "--recipe", TINY, "--data", photos, "--steps", "2", *late, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["not_examined"][0] == "objective.generator.commitment starts at step 50"
    assert found["findings"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a run folder or --recipe, got neither"),
        (["run", "--recipe", "tiny-vqvae"], "got both"),
        (["run", "--data", "photos"], "--data belongs to --recipe"),
        (["run", "--set", "engine.seed=1"], "--set belongs to --recipe"),
        (["nowhere"], "no such folder"),
        (["--recipe", "tiny-vqvaee"], "did you mean 'tiny-vqvae'"),
    ],
)
def test_what_cannot_be_is_one_message(smalti_cli: Verb, arguments: list[str], message: str) -> None:
    result = smalti_cli("doctor", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_what_train_found_is_told_at_its_end(smalti_cli: Verb, tmp_path: Path) -> None:
    given = ["--set", "objective.generator.kl.weight=10", "--set", "engine.max_steps=40", "--set", "data.batch_size=4"]
    result = smalti_cli("train", KL, *given, "--out", tmp_path / "run", "--json")
    (finding,) = json.loads(result.stdout)["diagnosis"]
    assert finding["id"] == "posterior-collapse"
    assert "warning: posterior-collapse" in result.stderr
    (line,) = (tmp_path / "run" / FILE).read_text().splitlines()
    assert json.loads(line)["id"] == "posterior-collapse"
