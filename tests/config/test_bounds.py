"""Laws of the bounds: no configuration costs more than reading it, and what is refused says where it stands."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from smalti.assembly.recipe import load_recipe
from smalti.config import ConfigError, dump, load, override, read_json, read_yaml
from smalti.config.bounded import MOST_LEVELS, MOST_NODES, compose
from smalti.config.document import parse
from smalti.engine.run_folder import RunFolder
from smalti.interop._containers import read_config_beside
from smalti.models._pretrained import is_saved_model, read_config
from smalti.registry import UserError


def bomb(levels: int, width: int) -> str:
    """Aliases of aliases: ``width`` to the power of ``levels`` values."""
    lines = ["a0: &a0 [1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels + 1)]
    return "\n".join(lines)


def chain(levels: int) -> str:
    """One alias inside the next: few values, each a level deeper."""
    return "\n".join(["a0: &a0 [1]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, levels + 1))])


# A text that is YAML to other readers, or nearly so -> what is said of it.
REFUSED = {
    "8 levels of 10 aliases": (bomb(8, 10), "more than 10,000 values"),
    "20 levels of 2 aliases": (bomb(20, 2), "more than 10,000 values"),
    "a chain of aliases": (chain(60), f"more than {MOST_LEVELS} levels"),
    "a mapping of aliases": (
        "a: &a {x: 1}\nb: &b {p: *a, q: *a}\n" + "c: [" + ", ".join(["*b"] * 3000) + "]",
        "values",
    ),
    "an anchor in itself": ("a: &a [1, *a]", "'a' holds itself"),
    "an anchor in a mapping of itself": ("a: &a {b: {c: *a}}", "'a' holds itself"),
    "the whole in itself": ("&a\nb: [*a]", "'a' holds itself"),
    "two that hold each other": ("a: &a [&b [*a], *b]", "'a' holds itself"),
    "an alias of nothing": ("a: *b", "not YAML"),
    "1000 brackets": ("a: " + "[" * 1000 + "]" * 1000, "levels"),
    "100000 brackets, open": ("a: " + "[" * 100_000, "levels"),
    "1000 braces": ("a: " + "{b: " * 1000 + "1" + "}" * 1000, "levels"),
    "1000 indents": ("\n".join(" " * n + "a:" for n in range(400)), "levels"),
    "1000 dashes": ("a:\n " + "- " * 1000 + "1", "levels"),
    "a tag of a number": ("a: !!int abc", "the tag '!!int'"),
    "a tag of a word": ("a: !!bool 3", "tag"),
    "a tag of a day": ("a: !!timestamp 2026-13-45", "tag"),
    "a tag that fits": ("a: !!str text", "tag"),
    "a tag of a set": ("a: !!set {b, c}", "tag"),
    "a tag of bytes": ("a: !!binary =", "tag"),
    "a tag of Python": ("a: !!python/object/apply:os.system [true]", "tag"),
    "a tag of its own": ("a: !mine {b: 1}", "tag"),
    "a tag of nothing": ("a: ! b", "tag"),
    "a tag of the key": ("!!int a: 1", "tag"),
    "5000 digits": ("a: " + "9" * 5000, "a number of 5,000 digits"),
    "5000 digits after the point": ("a: 0." + "9" * 5000, "a number of 5,002 digits"),
    "an exponent of 5000 digits": ("a: 1e" + "9" * 5000, "a number of"),
    "5000 underscores": ("a: 1" + "_" * 5000, "a number of"),
    "a long text": ("a: " + "x" * 20_000, "a text of 20,000 characters"),
    "a long key": ("a" * 300 + ": 1", "a key of 300 characters"),
    "a key that is a list": ("? [a, b]\n: 1", "a key that is no word"),
    "a key that is a mapping": ("{a: 1}: 2", "a key that is no word"),
    "a key that is an alias": ("a: &b c\n*b : 2", "a key that is no word"),
    "a character that is none": ('a: "\\0"', "which no text has"),
    "half a character": ('a: "\\ud800"', "which no text has"),
    "many values": ("a: [" + "1, " * 20_000 + "]", "more than 10,000 values"),
    "many keys": ("\n".join(f"k{n}: 1" for n in range(20_000)), "more than 10,000 values"),
    "a large file": ("# " + "x" * 300_000 + "\na: 1", "larger than a configuration"),
    "two documents": ("a: 1\n---\nb: 2", "not YAML"),
    "a directive of tomorrow": ("%YAML 9.9\n---\na: 1", "not YAML"),
}


def as_file(text: str, folder: Path) -> object:
    (folder / "own.yaml").write_text(text, encoding="utf-8")
    return load_recipe(folder / "own.yaml")


def as_stored_recipe(text: str, folder: Path) -> object:
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return RunFolder(folder).stored_recipe()


def beside_weights(text: str, folder: Path) -> object:
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    return read_config_beside(folder / "model.ckpt")


def as_value(text: str, folder: Path) -> object:
    """The same text as the value of an override."""
    document = parse("engine: {max_steps: 1}\n")
    override(document, f"engine.seed={text}")
    return document.data


WAYS: dict[str, Callable[[str, Path], object]] = {
    "recipe": as_file,
    "--set": as_value,
    "stored recipe": as_stored_recipe,
    "beside weights": beside_weights,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_out_of_bounds_is_refused_at_its_place(case: str, way: str, tmp_path: Path) -> None:
    text, says = REFUSED[case]
    with pytest.raises(UserError) as caught:
        WAYS[way](text, tmp_path)
    message = str(caught.value)
    assert says in message
    assert len(message) < 600
    assert "engine.seed" in message if way == "--set" else ".yaml" in message
    if way != "--set" and says != "larger than a configuration":
        assert re.search(r"\.yaml:\d+:\d+: ", message), "line and column"


def test_a_file_without_an_end_is_not_read_to_it() -> None:
    with pytest.raises(UserError, match="larger than a configuration"):
        load("/dev/zero")


def test_bounds_leave_room_for_recipes() -> None:
    deep = "[" * (MOST_LEVELS - 1) + "]" * (MOST_LEVELS - 1)
    assert parse(f"a: {deep}").data["a"] is not None
    with pytest.raises(UserError, match="levels"):
        parse(f"a: [{deep}]")
    wide = "a: [" + "1, " * (MOST_NODES - 3) + "]"  # the mapping, its key and the list count too
    assert len(parse(wide).data["a"]) == MOST_NODES - 3
    with pytest.raises(UserError, match="values"):
        parse(wide.replace("[", "[1, "))
    shared = parse("a: &x {lr: 1.0e-4}\nb: *x\nc: [*x, *x]")
    assert shared.data == {"a": {"lr": 1e-4}, "b": {"lr": 1e-4}, "c": [{"lr": 1e-4}] * 2}
    assert shared.data["a"] is not shared.data["b"], "an override of one leaves the other alone"


def test_many_overrides_cannot_nest_deeper_than_a_file() -> None:
    document = parse("a: 1\n")
    for place in (".".join(["x"] * 100_000), "x" * 1000, ".".join(["x"] * (MOST_LEVELS + 1))):
        with pytest.raises(ConfigError, match="no recipe has"):
            override(document, f"{place}=1")
    assert document.data == {"a": 1}


@pytest.mark.parametrize("index", ["²", "9" * 5000, "-1", "x", "1.5", "٣"])
def test_an_index_that_is_none_is_a_problem(index: str) -> None:
    with pytest.raises(ConfigError):
        override(parse("a: [1, 2, 3, 4]\n"), f"a.{index}=1")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 100_000, "levels"),
        ("[" * 1000 + "]" * 1000, "levels"),
        ('{"a": ' * 60 + "1" + "}" * 60, "levels"),
        ("9" * 5000, "no JSON"),
        ("{", "no JSON"),
        ("", "no JSON"),
        ("'a'", "no JSON"),
    ],
)
def test_json_is_bounded_wherever_it_is_read(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=says):
        read_config(tmp_path / "config.json")
    with pytest.raises(UserError, match=says):
        read_config_beside(tmp_path / "model.safetensors")
    assert is_saved_model(tmp_path), "damaged, and ours all the same"
    with pytest.raises(UserError, match=r"text:3: "):
        read_json(text, "text:3")


def test_json_of_some_depth_is_read() -> None:
    nested = [[{"a": [1, 2.5, None, "x"]}]]
    assert read_json(json.dumps(nested), "x") == nested


@pytest.mark.parametrize(
    "value",
    ["1e5", "yes", "010", "1:30", "null", "~", ".inf", "3", "true", "", "a: b", "é", "1_000", "2026-01-01", "x"],
)
def test_a_text_that_is_written_is_read_as_that_text(value: str) -> None:
    """By this reader and by any other: a folder may be called 1e5."""
    text = dump({"path": value, "list": [value]})
    assert read_yaml(text, "x") == yaml.safe_load(text) == {"path": value, "list": [value]}


def test_values_that_are_written_are_read_again() -> None:
    shared = {"lr": 1e-5, "betas": [0.5, 0.999]}
    values = {"one": shared, "two": shared, "n": None, "b": True, "i": -3, "large": 1e300, "inf": float("inf")}
    text = dump(values)
    assert read_yaml(text, "x") == values
    assert "&" not in text
    assert list(values) == list(read_yaml(text, "x"))


def test_an_empty_text_has_no_node() -> None:
    assert compose("", "x")[1] is None
    assert read_yaml("# nothing", "x") is None
