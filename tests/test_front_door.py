"""The front door: build, train and load by name, from Python."""

from pathlib import Path

import pytest
import torch

import smalti
from smalti.config import ConfigError
from smalti.registry import UserError

SMALL = ["engine.max_steps=2", "engine.log_every=1", "engine.sample_every=0"]


def test_build_depends_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = smalti.build("tiny-vqvae")
    state = torch.get_rng_state()
    second = smalti.build("tiny-vqvae")
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
    other = smalti.build("tiny-vqvae", ["engine.seed=1"])
    weights = [next(model.parameters()) for model in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_trained_model_is_loaded_from_its_run_folder(tmp_path: Path) -> None:
    result = smalti.train("tiny-vqvae", SMALL, out=tmp_path / "run", quiet=True)
    assert result.finished
    assert result.step == 2
    model = smalti.load(tmp_path / "run")
    assert not model.training
    size = 4 * model.factor
    images = torch.rand(1, 3, size, size) * 2 - 1
    output = model.encode(images)
    assert output.indices is not None
    assert torch.equal(model.decode_indices(output.indices), model.decode(output.latent))
    again = tmp_path / "again"
    model.save_pretrained(again)
    assert torch.equal(smalti.load(again).reconstruct(images), model.reconstruct(images))


def test_mistakes_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'vqvae'"):
        smalti.build("vqvea")
    with pytest.raises(ConfigError, match="max_step"):
        smalti.build("tiny-vqvae", ["engine.max_step=3"])
    with pytest.raises(UserError, match="nowhere"):
        smalti.load(tmp_path / "nowhere")
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        smalti.lod  # noqa: B018
