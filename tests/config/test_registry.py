"""Laws of the registry: a file is a part, phases choose within a pair, messages name the nearest good spelling."""

import copy
import pickle

import pytest

from smalti.registry import UserError, arguments_of, classes, names, resolve, short_name, suggest
from tests.config.parts import Foreign, Glass, Tile
from tests.config.tiles.couple import CoupleDiscriminator, CoupleGenerator
from tests.config.tiles.stone import Stone


def test_files_are_parts_and_underscores_are_not() -> None:
    assert names(Tile) == ("couple", "stone")
    assert classes(Tile) == {"couple": [CoupleGenerator, CoupleDiscriminator], "stone": [Stone]}


def test_short_name_is_the_inverse_of_resolve() -> None:
    assert resolve("stone", Tile) is Stone
    assert short_name(Stone) == "stone"
    assert resolve(short_name(Glass), Tile) is Glass
    assert short_name(Foreign) == "tests.config.parts.Foreign"


def test_phase_selects_within_a_pair() -> None:
    assert resolve("couple", Tile, "generator") is CoupleGenerator
    assert resolve("couple", Tile, "discriminator") is CoupleDiscriminator
    with pytest.raises(UserError, match="two classes outside a phase"):
        resolve("couple", Tile)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stne", "unknown tile 'stne'; did you mean 'stone'?"),
        ("zzz", "known: couple, stone"),
        ("_support", "unknown tile"),
        ("no_such_pkg.Glass", "cannot import 'no_such_pkg.Glass'"),
        ("tests.config.parts.Glas", "did you mean 'Glass'"),
        ("tests.config.parts.__doc__", "is a str, expected a tile class"),
    ],
)
def test_unknown_names_are_explained(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("?", r"\?").replace("(", r"\(")):
        resolve(name, Tile)


def test_a_part_of_one_player_is_refused_to_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stone, "phase", "generator")
    with pytest.raises(UserError, match="for the generator phase"):
        resolve("stone", Tile, "discriminator")


def test_arguments_survive_copying() -> None:
    glass = Glass(3, shade="bright")
    assert arguments_of(glass) == {"size": 3, "shade": "bright"}
    assert arguments_of(copy.deepcopy(glass)) == arguments_of(pickle.loads(pickle.dumps(glass))) == arguments_of(glass)


def test_suggest_is_silent_when_nothing_is_known() -> None:
    assert suggest("word", []) == ""
