"""``smalti recipes``: list, show, check, schema."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from smalti.assembly.recipe import read_document, shipped
from smalti.cli._schema import recipe_schema
from smalti.cli.recipes import SCHEMA_LINE, recipe_text
from smalti.config.schema import option_parameters
from smalti.losses import Loss
from smalti.registry import classes
from tests.cli.conftest import TINY, Verb


def test_list_says_what_each_recipe_is(smalti_cli: Verb) -> None:
    lines = smalti_cli("recipes", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(shipped())
    assert all(len(line.split()) > 3 for line in lines), "a recipe begins with a comment that says what it is"
    found = json.loads(smalti_cli("recipes", "list", "--json").stdout)
    assert [entry["name"] for entry in found] == list(shipped())


def test_show_is_the_recipe_as_it_is_written(smalti_cli: Verb) -> None:
    name = shipped()[0]
    text = smalti_cli("recipes", "show", name).stdout
    assert text.startswith("# ")
    assert yaml.safe_load(text).keys() == read_document(name).data.keys()
    lines = text.splitlines(keepends=True)
    assert lines.pop(1) == f"{SCHEMA_LINE}\n"
    assert "".join(lines) == recipe_text(name)


def test_show_applies_overrides_and_fills_in_defaults(smalti_cli: Verb) -> None:
    changed = yaml.safe_load(smalti_cli("recipes", "show", TINY, "--set", "engine.max_steps=7").stdout)
    assert changed["engine"]["max_steps"] == 7
    assert "seed" not in changed["engine"]
    resolved = json.loads(smalti_cli("recipes", "show", TINY, "--resolved", "--json").stdout)
    assert resolved["engine"]["seed"] == 0
    assert resolved["objective"]["generator"]["pixel"]["reduction"] == "mean"


def test_what_show_resolves_is_a_recipe_again(smalti_cli: Verb, tmp_path: Path) -> None:
    again = tmp_path / "again.yaml"
    again.write_text(smalti_cli("recipes", "show", TINY, "--resolved").stdout)
    result = smalti_cli("recipes", "check", again)
    assert result.exit_code == 0, result.output


@pytest.mark.slow  # each of them is read by itself in tests/recipes
def test_every_shipped_recipe_and_its_tiny_form_pass(smalti_cli: Verb) -> None:
    result = smalti_cli("recipes", "check")
    assert result.exit_code == 0, result.output
    forms = [form for name in shipped() for form in (name, f"tiny-{name}")]
    assert result.stdout.splitlines() == [f"{form}: ok" for form in forms]


def test_check_finds_all_mistakes_in_one_pass(smalti_cli: Verb) -> None:
    wrong = ["--set", "objective.generator.pixel.wieght=2", "--set", "engine.max_steps=-1", "--set", "modle={}"]
    result = smalti_cli("recipes", "check", TINY, *wrong)
    assert result.exit_code == 2
    assert "3 problems" in result.stderr
    for place in ("objective.generator.pixel.wieght", "engine.max_steps", "modle"):
        assert place in result.stderr
    assert "did you mean 'weight'" in result.stderr
    assert "(--set)" in result.stderr
    found = json.loads(smalti_cli("recipes", "check", TINY, *wrong, "--json").stdout)
    places = {problem["place"] for problem in found[0]["problems"]}
    assert places == {"objective.generator.pixel.wieght", "engine.max_steps", "modle"}


def test_check_goes_on_after_a_recipe_that_cannot_be_read(smalti_cli: Verb) -> None:
    result = smalti_cli("recipes", "check", "nowhere.yaml", TINY)
    assert result.exit_code == 2
    assert "nowhere.yaml" in result.stderr
    assert f"{TINY}: ok" in result.stdout


def accepts(schema: dict[str, Any], value: Any, root: dict[str, Any]) -> bool:
    """Whether a value fits a schema: the words of JSON Schema that ours uses."""
    if "$ref" in schema:
        return accepts(root["$defs"][schema["$ref"].rpartition("/")[2]], value, root)
    if "anyOf" in schema and not any(accepts(option, value, root) for option in schema["anyOf"]):
        return False
    if "const" in schema and value != schema["const"]:
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "type" in schema and not is_of_type(value, schema["type"]):
        return False
    if isinstance(value, dict):
        return accepts_mapping(schema, value, root)
    if isinstance(value, list):
        items = schema.get("prefixItems") or [schema.get("items", {})] * len(value)
        return len(items) == len(value) and all(accepts(s, v, root) for s, v in zip(items, value, strict=True))
    return accepts_scalar(schema, value)


def accepts_mapping(schema: dict[str, Any], value: dict[str, Any], root: dict[str, Any]) -> bool:
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    if not set(schema.get("required", ())) <= value.keys() or len(value) < schema.get("minProperties", 0):
        return False
    for key, item in value.items():
        found = properties.get(key, others)
        if found is False or (isinstance(found, dict) and not accepts(found, item, root)):
            return False
    return True


def accepts_scalar(schema: dict[str, Any], value: Any) -> bool:
    if isinstance(value, str):
        return re.search(schema.get("pattern", ""), value) is not None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return True
    return (
        schema.get("minimum", value) <= value <= schema.get("maximum", value)
        and not value <= schema.get("exclusiveMinimum", value - 1)
        and not value >= schema.get("exclusiveMaximum", value + 1)
    )


def is_of_type(value: Any, types: str | list[str]) -> bool:
    words = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", type(None): "null"}
    word = words.get(type(value), "number")
    allowed = [types] if isinstance(types, str) else types
    return word in allowed or (word == "integer" and "number" in allowed)


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return recipe_schema()


@pytest.mark.parametrize("name", [*shipped(), str(TINY)])
def test_recipes_fit_the_schema(name: str, schema: dict[str, Any]) -> None:
    assert accepts(schema, read_document(name).data, schema)


@pytest.mark.parametrize(
    "mistake",
    [
        "model.type=autoenkoder",
        "objective.generator.pixel.wieght=1.0",
        "objective.generator.pixel.reduction=avg",
        "objective.generator.pixel.type=lsgan_x",
        "engine.max_steps=0",
        "engine.max_steps=many",
        "data.source=null",
        "optim.generator.lr=0.0",
        "optim.generator.betas=[0.9]",
        "validation={}",
        "unknown=1",
    ],
)
def test_the_schema_refuses_mistakes(mistake: str, schema: dict[str, Any]) -> None:
    assert not accepts(schema, read_document(TINY, [mistake]).data, schema)


def test_the_schema_holds_every_loss_with_its_options(schema: dict[str, Any]) -> None:
    described = {
        (entry["properties"]["type"]["const"], player): set(entry["properties"])
        for player in ("generator", "discriminator")
        for entry in schema["$defs"][f"{player}_term"]["anyOf"]
        if "const" in entry["properties"]["type"]
    }
    for name, found in classes(Loss).items():
        for cls in found:
            for player in ("generator", "discriminator"):
                if cls.phase in {None, player}:
                    assert set(option_parameters(cls)) | {"type", "weight", "start"} <= described[name, player]


def test_schema_is_printed_as_json(smalti_cli: Verb, schema: dict[str, Any]) -> None:
    assert json.loads(smalti_cli("recipes", "schema").stdout) == schema


def test_schema_is_written_beside_recipes_as_show_names_it(
    smalti_cli: Verb, schema: dict[str, Any], tmp_path: Path
) -> None:
    line = smalti_cli("recipes", "show", TINY, "--set", "engine.seed=1").stdout.splitlines()[0]
    path = tmp_path / line.partition("$schema=")[2]
    assert smalti_cli("recipes", "schema", "--file", path).exit_code == 0
    assert json.loads(path.read_text(encoding="utf-8")) == schema
    assert smalti_cli("recipes", "schema", "--file", path).exit_code == 2, "it is there"
    assert smalti_cli("recipes", "schema", "--file", path, "--force").exit_code == 0
    assert smalti_cli("recipes", "schema", "--force").exit_code == 2
