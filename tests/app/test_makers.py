"""The playground makes what ``smalti sample`` makes: of a GAN's generator, and of a model of tokens."""

from pathlib import Path

import pytest
import torch

import smalti
from smalti.app import Maker
from smalti.cli._token_sampling import token_images
from smalti.cli.app import playable
from smalti.cli.sample import images_of
from smalti.interop.decoding import kept_with, tokenizer_for
from smalti.registry import UserError
from tests.generate import toys

START = {"temperature": 1.0, "top_k": 0.0, "top_p": 1.0, "guidance": 1.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a ``tokenizer``, the ``store`` of its tokens and a ``run`` that learned from it."""
    return toys.trained(tmp_path_factory.mktemp("tokens"), max_steps=2)


def test_a_generator_draws_as_sample_does() -> None:
    generator = smalti.build("tiny-biggan-32").eval()
    maker = playable("model", generator)
    assert isinstance(maker, Maker)
    assert maker.num_classes == generator.num_classes > 0
    for label, truncation in ((None, 1.0), (2, 0.5)):
        expected = torch.cat(list(images_of(generator, 7, 3, truncation, label)))
        assert torch.equal(maker.draw(7, 3, label, {"truncation": truncation}), expected)


def test_a_model_of_tokens_draws_as_sample_does(folder: Path) -> None:
    model = smalti.load(folder / "run")
    maker = playable(str(folder / "run"), model)
    assert isinstance(maker, Maker)
    assert {slider.name: slider.value for slider in maker.sliders} == START
    tokenizer = tokenizer_for(model, kept_with(folder / "run"))
    drawn = torch.cat(list(token_images(model, tokenizer, seed=5, count=3)))
    assert torch.equal(maker.draw(5, 3, None, START), drawn)
    options = {"guidance": 3.0, "temperature": 0.5, "top_p": 0.9}
    drawn = torch.cat(list(token_images(model, tokenizer, seed=5, count=3, classes=[1], top_k=2, **options)))
    assert torch.equal(maker.draw(5, 3, 1, {**options, "top_k": 2.0}), drawn)


def test_what_makes_no_images_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a Linear, expected an autoencoder or a generator"):
        playable("model", torch.nn.Linear(1, 1))
    smalti.load(folder / "run").save_pretrained(tmp_path / "alone")
    with pytest.raises(UserError, match="tokenizer"):
        playable(str(tmp_path / "alone"), smalti.load(tmp_path / "alone"))
