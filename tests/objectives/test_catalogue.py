"""The table of terms says what the docstrings and signatures of all losses say, and the page is that table."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smalti.cli._app import app
from smalti.losses import Loss
from smalti.objectives.catalogue import Entry, as_markdown, catalogue
from smalti.registry import classes

PAGE = Path(__file__).parents[2] / "docs" / "terms.md"
ENTRIES = catalogue()


def entry(name: str, phase: str | None = None) -> Entry:
    return next(one for one in ENTRIES if one.name == name and phase in (None, one.phase))


def test_every_class_of_loss_has_one_row() -> None:
    assert len(ENTRIES) == sum(len(members) for members in classes(Loss).values())
    assert [one.name for one in ENTRIES] == sorted(one.name for one in ENTRIES)


@pytest.mark.parametrize("one", ENTRIES, ids=[f"{one.name}-{one.phase}" for one in ENTRIES])
def test_a_row_is_complete(one: Entry) -> None:
    assert one.formula
    assert one.inputs
    assert one.paper.startswith(("arXiv:", "doi:10."))
    assert "arXiv" not in one.formula, "the paper has a column of its own"
    assert one.paper.count("(") == one.paper.count(")")


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == as_markdown(ENTRIES), "smalti recipes terms --markdown > docs/terms.md"


def test_inputs_and_phases_are_those_of_the_code() -> None:
    assert entry("l1").inputs == ("prediction", "target")
    assert entry("l1").optional == ("weight",)
    assert entry("l1").phase == entry("kl").phase == entry("cosine").phase == entry("path_length").phase == "generator"
    assert entry("hinge", "discriminator").inputs == ("logits_real", "logits_fake")
    assert entry("r1").phase == entry("gradient_penalty").phase == entry("lecam").phase == "discriminator"
    assert entry("feature_matching").phase == "generator"
    assert entry("psnr").options[:2] == ("clamp", "eps")


def test_a_sentence_that_names_a_function_is_followed_by_the_functions() -> None:
    assert "(z - sg q)^2" in entry("commitment").formula
    assert ":func:" not in PAGE.read_text(encoding="utf-8")


def test_the_verb_prints_it_three_ways() -> None:
    run = CliRunner().invoke
    plain = run(app, ["recipes", "terms"])
    assert plain.exit_code == 0
    assert [line.split()[0] for line in plain.stdout.splitlines()] == [one.name for one in ENTRIES]
    found = json.loads(run(app, ["recipes", "terms", "--json"]).stdout)
    assert [(one["name"], one["phase"]) for one in found] == [(one.name, one.phase) for one in ENTRIES]
    assert set(found[0]) == {"name", "phase", "formula", "inputs", "optional", "options", "paper", "looks_at"}
    assert run(app, ["recipes", "terms", "--markdown"]).stdout == as_markdown(ENTRIES)
