"""Laws of the YAML reader: YAML 1.2 scalars, each value knows its line, a key that stands twice is a problem."""

from pathlib import Path

import pytest

from smalti.config import ConfigError, Problem, load, override
from smalti.config.document import merge, parse, parse_scalar
from smalti.registry import UserError


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("1.e3", 1e3), (".5", 0.5), ("no", "no"), ("on", "on"), ("010", "010"), ("1:30", "1:30"),
     ("true", True), ("null", None), ("-3", -3), ("1_000", 1000), ("-.inf", float("-inf")), ("'3'", "3"), ("", None),
     ("2026-01-01", "2026-01-01")],
)  # fmt: skip
def test_scalars_are_read_as_yaml_1_2(text: str, value: object) -> None:
    assert parse_scalar(text) == value
    assert type(parse_scalar(text)) is type(value)


def test_each_value_knows_its_line() -> None:
    document = parse("a: 1\nb:\n  c: [1, 2]\n  d: {e: 3}\n", "r.yaml")
    assert document.data == {"a": 1, "b": {"c": [1, 2], "d": {"e": 3}}}
    assert document.where("b.c.1") == document.where("b.c") == "r.yaml:3"
    assert document.where("b.d.e.unknown") == "r.yaml:4"
    assert document.where("nowhere") == ""


def test_a_key_that_stands_twice_is_a_problem() -> None:
    document = parse("a: 1\nb: {c: 1, c: 2}\na: 3\n", "r.yaml")
    assert [(p.place, p.where) for p in document.problems] == [("b.c", "r.yaml:2"), ("a", "r.yaml:3")]
    assert document.data["a"] == 1


@pytest.mark.parametrize(
    "text", ["", "- 1\n- 2\n", "3", "a: [1\n", "a: b: c\n", "\t- x", "!!python/object:os.system a", "a: 1\nb: \0"]
)
def test_what_is_no_mapping_is_a_user_error(text: str) -> None:
    with pytest.raises(UserError, match=r"r\.yaml"):
        parse(text, "r.yaml")


def test_files_that_cannot_be_read_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot read"):
        load(tmp_path / "bytes.yaml")
    with pytest.raises(UserError, match="cannot read"):
        load(tmp_path)


def test_override_sets_values_and_their_mark() -> None:
    document = parse("a: {b: 1}\nc: [1, 2]\n", "r.yaml")
    override(document, "a.b=1e-3")
    override(document, "x.y=[true]")
    override(document, "c.1=5")
    assert document.data == {"a": {"b": 1e-3}, "c": [1, 5], "x": {"y": [True]}}
    assert document.where("a.b") == "(--set)"


def test_override_takes_out_a_mapping_and_sets_a_value_to_null() -> None:
    document = parse("a: {b: {type: x}, c: 1}\nd: 2\n", "r.yaml")
    for assignment in ("a.b=null", "a.c=null", "d=null", "e=null"):
        override(document, assignment)
    assert document.data == {"a": {"c": None}, "d": None, "e": None}


@pytest.mark.parametrize("text", ["a", "=3", "a..b=1", "a.b.c=1", "c.7=1", "c.x=1", "a=[1", "c.x.y=2", "a=\0"])
def test_overrides_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        override(parse("a: {b: 1}\nc: [1]\n"), text)


def test_merge_replaces_what_names_another_type() -> None:
    base = {"m": {"type": "x", "a": 1}, "n": {"a": 1}, "o": 2}
    over = {"m": {"type": "y"}, "n": {"b": 2}, "o": None, "p": None}
    assert merge(base, over) == {"m": {"type": "y"}, "n": {"a": 1, "b": 2}, "p": None}
    assert merge(base, {"m": {"type": "x", "b": 2}})["m"] == {"type": "x", "a": 1, "b": 2}


def test_error_lists_all_problems_with_their_places() -> None:
    error = ConfigError([Problem("a.b", "wrong", "r.yaml:3"), Problem("c", "also", "(--set)"), Problem("", "whole")])
    assert str(error).splitlines() == [
        "3 problems:",
        "  a.b (r.yaml:3): wrong",
        "  c (--set): also",
        "  recipe: whole",
    ]
    assert str(ConfigError([Problem("a", "wrong")])) == "a: wrong"
