"""Laws of the builder: build is the inverse of config_of, every problem is found in one pass, nothing is coerced."""

from pathlib import Path
from typing import Any

import pytest

from smalti.config import ConfigError, Spec, Validator, build, config_of, plain
from smalti.config.schema import option_parameters
from tests.config.parts import Foreign, Glass, Grout, Tile, function
from tests.config.tiles.stone import Stone

GLASS = "tests.config.parts.Glass"


def test_build_is_the_inverse_of_config_of() -> None:
    config = {
        "type": GLASS,
        "size": 3,
        "shade": "bright",
        "neighbours": [{"type": "stone", "weight": 1.5}],
        "corners": {"left": {"type": GLASS, "size": 1}},
        "grout": {"width": 2, "colours": ["red"]},
        "pair": [2, 3],
        "path": "a/b",
        "either": [1, 2],
    }
    made = build(config, Tile)
    assert isinstance(made, Glass)
    assert isinstance(made.neighbours[0], Stone)
    assert made.grout == Grout(2.0, ("red",))
    assert made.path == Path("a/b")
    again = config_of(build(config_of(made), Tile))
    assert again == config_of(made)
    assert again["neighbours"] == [{"type": "stone", "weight": 1.5}]
    assert again["grout"] == {"width": 2.0, "colours": ["red"]}
    assert again["ratio"] == 1.0, "defaults are written out"


def test_every_problem_is_found_in_one_pass() -> None:
    config = {
        "type": GLASS,
        "shade": "brigth",
        "neighbours": [{"type": "ston"}, {"tpe": "stone"}, 7],
        "corners": {"left": {"type": "stone", "wieght": 1}},
        "grout": {"width": 0, "colour": "red"},
        "ratio": "1",
        "flag": 1,
        "pair": [1],
        "either": "x",
        "path": 3,
        "nieghbours": [],
    }
    with pytest.raises(ConfigError) as caught:
        build(config, Tile)
    found = {problem.place: problem.message for problem in caught.value.problems}
    assert found == {
        "size": "missing option 'size' of Glass",
        "shade": "'brigth': expected 'matt' or 'bright'; did you mean 'bright'?",
        "neighbours.0.type": "unknown tile 'ston'; did you mean 'stone'?",
        "neighbours.1": "a tile needs 'type'; did you mean 'type' instead of 'tpe'?",
        "neighbours.2": "7: expected a tile, a mapping with 'type'",
        "corners.left.wieght": "unknown option 'wieght' of Stone; did you mean 'weight'?",
        "grout.width": "0: expected greater than 0",
        "grout.colour": "unknown option 'colour' of Grout; did you mean 'colours'?",
        "ratio": "'1': expected a valid number",
        "flag": "1: expected a valid boolean",
        "pair": "[1]: expected 2 values",
        "either": "'x': expected int or Sequence",
        "path": "3: expected a path",
        "nieghbours": "unknown option 'nieghbours' of Glass; did you mean 'neighbours'?",
    }


@pytest.mark.parametrize(
    ("option", "value"),
    [("size", True), ("size", 3.0), ("size", "3"), ("ratio", True), ("flag", "true"), ("shade", None), ("grout", 3)],
)
def test_nothing_is_coerced(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=option):
        build({"type": GLASS, "size": 1, option: value}, Tile)


@pytest.mark.parametrize(("option", "value"), [("neighbours", "ab"), ("corners", [1]), ("type", 3), ("pair", 5)])
def test_containers_must_be_what_they_are(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=r"expected|needs"):
        build({"type": GLASS, "size": 1, option: value}, Tile)


def test_what_a_constructor_refuses_has_its_place() -> None:
    with pytest.raises(ConfigError) as caught:
        build({"type": GLASS, "size": 1, "corners": {"left": {"type": GLASS, "size": 13}}}, Tile)
    assert caught.value.problems[0].place == "corners.left"


def test_foreign_classes_are_recorded_and_need_trust() -> None:
    config = {"type": "tests.config.parts.Foreign", "size": 5}
    made: Any = build(config, Tile)
    assert isinstance(made, Foreign)
    assert config_of(made) == config
    with pytest.raises(ConfigError, match="trust_code"):
        build(config, Tile, trust_code=False)
    with pytest.raises(TypeError, match="not built from a recipe"):
        config_of(Foreign())


def test_options_of_a_function_are_its_keyword_only_arguments() -> None:
    assert list(option_parameters(function)) == ["power"]
    spec = Validator().call(function, {"power": 3}, "")
    assert isinstance(spec, Spec)
    assert plain(spec) == {"power": 3}


def test_an_instance_passes_as_itself() -> None:
    stone = Stone(1.0)
    assert build({"type": GLASS, "size": 1, "neighbours": [stone]}, Tile).neighbours == (stone,)  # type: ignore[attr-defined]


def test_a_type_that_yaml_cannot_hold_is_said() -> None:
    validator = Validator()
    validator.value(3, Foreign, "here")
    assert "cannot be written in a recipe" in validator.problems[0].message
    assert validator.value(made := Foreign(), Foreign, "here") is made
