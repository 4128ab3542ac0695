"""The zoo is whole, and its doctor is right about a few of its animals; ``python -m benchmarks.doctor`` asks of all."""

import json
from pathlib import Path

import pytest
import yaml

from benchmarks.doctor_page import PAGE, put, rules_section
from smalti.assembly.assemble import assemble
from smalti.assembly.recipe import load_recipe
from smalti.assembly.recipe import shipped as shipped_names
from smalti.diagnosis import FILE, all_rules, replay
from smalti.engine.trainer import Trainer
from smalti.engine.turn import Turn
from smalti.report import read_run
from tests.zoo.keeper import HERE, Animal, healthy, shipped, sick

SICK, HEALTHY = list(sick()), list(healthy())
QUICK = {"posterior", "nan-term"}
QUICK_HEALTHY = {"kl"}


class DiedHereError(Exception):
    pass


def test_every_rule_has_an_animal_and_every_animal_a_rule() -> None:
    assert len(SICK) >= 30
    assert len(HEALTHY) >= 15
    assert {animal.expect for animal in SICK} == {rule.id for rule in all_rules()}


def test_sick_ones_differ_from_a_healthy_one_by_one_value() -> None:
    assert {animal.base for animal in SICK} <= {animal.base for animal in HEALTHY if not animal.overrides}
    assert [animal.name for animal in SICK if len(animal.overrides) != 1] == []
    assert [animal.name for animal in SICK if not 1 <= len(animal.cure) <= 2] == []


@pytest.mark.parametrize("animal", [*SICK, *HEALTHY], ids=lambda animal: animal.name)
def test_recipe_can_be_read(animal: Animal) -> None:
    load_recipe(animal.recipe, animal.overrides)
    load_recipe(animal.recipe, animal.cured().overrides)


def cases(animals: list[Animal], quick: set[str]) -> list[object]:
    return [pytest.param(a, id=a.name, marks=[] if a.name in quick else [pytest.mark.slow]) for a in animals]


@pytest.mark.parametrize("animal", cases(SICK, QUICK))
def test_sick_one_is_named(animal: Animal, tmp_path: Path) -> None:
    assert animal.expect in {finding.id for finding in animal.run(tmp_path / "run")}


@pytest.mark.parametrize("animal", cases(HEALTHY, QUICK_HEALTHY))
def test_healthy_one_is_left_in_peace(animal: Animal, tmp_path: Path) -> None:
    assert [finding.line() for finding in animal.run(tmp_path / "run")] == []


@pytest.mark.slow
@pytest.mark.parametrize("animal", [a.cured() for a in SICK], ids=lambda animal: animal.name)
def test_what_its_rule_recommends_cures_it(animal: Animal, tmp_path: Path) -> None:
    assert animal.expect not in {finding.id for finding in animal.run(tmp_path / "run")}


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_names())
def test_tiny_form_of_a_shipped_recipe_is_left_in_peace(name: str, tmp_path: Path) -> None:
    (animal,) = shipped([name])
    assert [finding.line() for finding in animal.run(tmp_path / "run")] == []


@pytest.mark.parametrize("stop", [15, 35])
def test_what_is_said_live_is_what_the_folder_tells_and_what_a_resumed_run_says(tmp_path: Path, stop: int) -> None:
    """A crash after a checkpoint that lies between two log steps, one before and one after the finding."""

    def trainer(name: str) -> Trainer:
        given = ["objective.generator.kl.weight=10", "engine.max_steps=60", "engine.ema={decay: 0.9}"]
        read = load_recipe(HERE / "bases" / "kl.yaml", [*given, f"engine.checkpoint_every={stop}"])
        return assemble(read, tmp_path / name, quiet=True)

    straight = trainer("straight").run()
    dying = trainer("resumed")
    cycle = dying.run_cycle

    def until_death(measure: bool = False) -> list[Turn]:
        if dying.state.step == stop + 2:
            raise DiedHereError
        return cycle(measure)

    dying.run_cycle = until_death  # type: ignore[method-assign]
    with pytest.raises(DiedHereError):
        dying.run()
    with (tmp_path / "resumed" / FILE).open("a") as file:
        file.write('{"id": "posterior-coll')  # the machine died while a line was written
    resumed = trainer("resumed").run(resume=True)
    assert [finding.id for finding in straight.findings] == ["posterior-collapse"]
    for result in (straight, resumed):
        run = read_run(result.folder)
        told = replay(run.records, yaml.safe_load(run.recipe)).findings
        assert [f.as_dict() for f in told] == [f.as_dict() for f in result.findings]
    assert [f.as_dict() for f in resumed.findings] == [f.as_dict() for f in straight.findings]
    assert (tmp_path / "resumed" / FILE).read_text() == (tmp_path / "straight" / FILE).read_text()
    assert json.loads((tmp_path / "straight" / FILE).read_text())["since"] == straight.findings[0].step


def test_page_has_the_rules_as_they_are() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert put(text, "rules", rules_section()) == text
    assert all(f"### {rule.id}\n" in text for rule in all_rules())
