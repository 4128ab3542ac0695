"""What cannot work between a model of tokens and the rest of its recipe is said when the recipe is read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smalti.assembly.recipe import read_document, validate
from smalti.config import ConfigError
from tests.generate import toys


def far() -> dict[str, Any]:
    return read_document("tiny-far-digits").data


def tokenizer() -> dict[str, Any]:
    return read_document("tiny-digits-tokenizer").data


def problems(what: dict[str, Any]) -> dict[str, str]:
    """Place -> message."""
    document = read_document("tiny-far-digits")
    document.data = what
    try:
        validate(document)
    except ConfigError as error:
        return {problem.place: problem.message for problem in error.problems}
    return {}


REFUSED: list[tuple[Callable[[], dict[str, Any]], dict[str, Any], str, str]] = [
    (far, {"objective.generator": {"l1": {"type": "l1"}}}, "objective.generator.l1.inputs", "needs images"),
    (far, {"objective.generator": {"kl": {"type": "kl"}}}, "objective.generator.kl.inputs", "unknown context name"),
    (far, {"objective.generator.tokens.inputs": {"logits": "logits.one"}}, "objective.generator.tokens", "a mapping"),
    (far, {"objective.generator.tokens.inputs": {"indices": "batch.label"}}, "objective.generator.tokens", "(1,)"),
    (far, {"data.source": {"type": "digits"}}, "data.source", "no column 'indices', which the model reads"),
    (far, {"data.transform": {"size": 8}}, "data.transform", "no images to crop"),
    (far, {"validation.data.transform": {"size": 8}}, "validation.data.transform", "no images to crop"),
    (far, {"validation.protocol": "clean"}, "validation.protocol", "the held-out data have none"),
    (far, {"validation.metrics": ["psnr"]}, "validation.metrics.psnr", "bits_per_pixel, bits_per_token"),
    (far, {"data.source.num_classes": 0}, "model.num_classes", "no column 'label'"),
    (far, {"validation.data.source": {"type": "digits"}}, "validation.data.source", "no column 'indices'"),
    (far, {"discriminator": {"type": "mlp", "image_size": 8}}, "objective.discriminator", "missing"),
    (
        tokenizer,
        {"objective.generator": {"t": {"type": "cross_entropy"}}},
        "objective.generator.t.inputs",
        "TokensOut",
    ),
    (tokenizer, {"data.source": {"type": "known_tokens"}}, "data.source", "no column 'image', which the model reads"),
    (tokenizer, {"validation.metrics": ["bits_per_token"]}, "validation.metrics.bits_per_token", "that predict tokens"),
]


@pytest.mark.parametrize(("made", "changes", "place", "message"), REFUSED)
def test_what_does_not_fit_is_named(
    made: Callable[[], dict[str, Any]], changes: dict[str, Any], place: str, message: str
) -> None:
    what = made()
    for name, value in changes.items():
        section, *inner, last = name.split(".") if "." in name else ("", name)
        target = what
        for key in ([section] if section else []) + inner:
            target = target[key]
        target[last] = value
    found = problems(what)
    assert place in found, found
    assert message in found[place]


def test_a_recipe_of_tokens_is_right_before_its_store_is_made() -> None:
    assert problems({**read_document("far-digits").data}) == {}


def test_a_store_replaces_that_of_training_and_of_validation(tmp_path: Path) -> None:
    toys.tokenizer(tmp_path / "tokenizer")
    toys.store(tmp_path / "store", tmp_path / "tokenizer")
    document = read_document("far-digits", ["validation.every=7"], tmp_path / "store").data
    sources = [document["data"]["source"], document["validation"]["data"]["source"]]
    path = str(tmp_path / "store")
    assert sources == [{"type": "tokens", "path": path, "part": part, "every": 3} for part in ("train", "held_out")]
    other = read_document("far-digits", ["validation.data.source.path=elsewhere"], tmp_path / "store").data
    assert other["validation"]["data"]["source"]["path"] == "elsewhere"


def test_a_folder_of_images_is_no_store(tmp_path: Path) -> None:
    document = read_document("far-digits", (), tmp_path).data
    assert document["data"]["source"] == {"type": "image_folder", "path": str(tmp_path)}
    assert "sources with it: known_tokens, tokens" in problems(document)["data.source"]
