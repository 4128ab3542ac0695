"""Fine-tuning: a run starts from saved weights, and what is frozen stays bit-equal."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import smalti
from smalti.assembly.assemble import assemble, build_model
from smalti.assembly.recipe import load_recipe
from smalti.config import ConfigError
from smalti.interop.converting import convert
from smalti.models.autoencoder import Autoencoder
from smalti.registry import UserError
from tests.conftest import GOLDEN
from tests.interop.checkpoints import save, tiny_kl, tiny_vq

OBJECTIVE = {"generator": {"pixel": {"type": "mse"}}}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model = tiny_vq()
    model.save_pretrained(tmp_path / "ours")
    return tmp_path / "ours"


def recipe(folder: Path, model: dict[str, Any], objective: dict[str, Any] = OBJECTIVE, **sections: Any) -> Path:
    path = folder / "recipe.yaml"
    written = {
        "model": model,
        "objective": objective,
        "data": {
            "source": {"type": "photos", "include": ["china"]},
            "transform": {"size": 16, "crop": "random"},
            "batch_size": 2,
        },
        "optim": {"generator": {"lr": 1e-2}},
        "engine": {"max_steps": 3, "checkpoint_every": 0, "sample_every": 0},
        **sections,
    }
    path.write_text(yaml.safe_dump(written))
    return path


def trained(folder: Path, model: dict[str, Any], **sections: Any) -> Autoencoder:
    smalti.train(recipe(folder, model, **sections), out=folder / "run", quiet=True)
    return smalti.load(folder / "run")


def problems(folder: Path, model: dict[str, Any], **sections: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe(folder, model, **sections))
    return str(caught.value)


def test_decoder_only_fine_tuning_leaves_latents_and_codes_bit_equal(saved: Path, tmp_path: Path) -> None:
    before = smalti.load(saved)
    after = trained(tmp_path, {"init": str(saved), "freeze": ["encoder", "bottleneck"]})
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(before.encode(images).latent, after.encode(images).latent)
    assert torch.equal(before.encode(images).indices, after.encode(images).indices)
    for key, value in before.state_dict().items():
        if key.startswith(("encoder.", "bottleneck.")) and ".window." not in key:
            assert torch.equal(value, after.state_dict()[key]), key
    assert not torch.equal(before.last_layer, after.last_layer)
    assert float(after.bottleneck.usage()["codebook"]["usage"]) > 0, "usage is still counted"


def test_codes_that_move_by_averages_stay_too(tmp_path: Path) -> None:
    network = {"type": "conv", "channels": 8, "multipliers": [1], "groups": 4, "patch_size": 4}
    quantizer = {"type": "nearest", "size": 8, "channels": 4, "ema": {"decay": 0.5}, "revival": {"patience": 1}}
    model = {
        "type": "autoencoder",
        "encoder": {**network, "norm": "batch", "out_channels": 4},
        "bottleneck": {
            "type": "tokens",
            "in_channels": 4,
            "codebooks": {"codebook": {"quantizer": quantizer, "projection": False}},
        },
        "decoder": {**network, "latent_channels": 4, "z_channels": None},
    }
    (tmp_path / "first").mkdir()
    first = trained(tmp_path / "first", model)
    second = trained(tmp_path, {"init": str(tmp_path / "first" / "run"), "freeze": ["encoder", "bottleneck"]})
    old, new = first.state_dict(), second.state_dict()
    kept = [key for key in old if key.startswith(("encoder.", "bottleneck.")) and ".window." not in key]
    assert any("running_mean" in key for key in kept)
    assert any("ema_sums" in key for key in kept)
    assert all(torch.equal(old[key], new[key]) for key in kept)
    assert not torch.equal(first.last_layer, second.last_layer)


def test_a_run_starts_from_a_foreign_checkpoint(tmp_path: Path) -> None:
    path = GOLDEN / "ldm/kl_tiny_state.safetensors"
    start = load_recipe(recipe(tmp_path, {"init": str(path)}))
    model, source = build_model(start), smalti.load(path)
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_options_beside_init_change_the_saved_ones(saved: Path, tmp_path: Path) -> None:
    def changed(**options: object) -> dict[str, object]:
        return {"init": str(saved), "bottleneck": {"codebooks": {"codebook": {"quantizer": options}}}}

    plain = load_recipe(recipe(tmp_path, changed(usage_window=7))).plain()["model"]
    assert plain["init"] == str(saved)
    quantizer = plain["bottleneck"]["codebooks"]["codebook"]["quantizer"]
    assert (quantizer["usage_window"], quantizer["size"]) == (7, 16)
    wider = load_recipe(recipe(tmp_path, changed(size=17)))
    with pytest.raises(
        UserError, match=r"bottleneck\.branches\.codebook\.quantizer\.weight has shape \(16, 4\), expected \(17, 4\)"
    ):
        build_model(wider)


def test_the_stored_recipe_resumes(saved: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path, {"init": str(saved), "freeze": ["encoder"]})
    smalti.train(path, out=tmp_path / "run", quiet=True)
    stored = load_recipe(tmp_path / "run" / "recipe.yaml", ["engine.max_steps=4"])
    result = assemble(stored, tmp_path / "run", quiet=True).run(resume=True)
    assert result.step == 4


def test_a_discriminator_is_carried_along(tmp_path: Path) -> None:
    source = {key: value for key, value in _golden_state().items() if "perceptual" not in key}
    convert(save(tmp_path / "kl.ckpt", {}, state_dict=source), tmp_path / "ours", keep_discriminator=True)
    adversarial = {"type": "hinge", "weight": 0.5}
    objective = {**OBJECTIVE, "discriminator": {"adversarial": adversarial}}
    objective["generator"] = {**OBJECTIVE["generator"], "adversarial": adversarial}
    start = load_recipe(
        recipe(
            tmp_path,
            {"init": str(tmp_path / "ours"), "freeze": ["encoder", "bottleneck"]},
            objective,
            discriminator={"init": str(tmp_path / "ours")},
            data={"source": {"type": "photos"}, "transform": {"size": 32, "crop": "random"}, "batch_size": 2},
            optim={"generator": {"lr": 1e-3}, "discriminator": {"lr": 1e-3}},
        )
    )
    trainer = assemble(start, tmp_path / "run", quiet=True)
    found = trainer.phases["discriminator"].network.state_dict()
    assert found.keys() == {key.removeprefix("loss.discriminator.") for key in source if "loss.discriminator" in key}
    assert all(torch.equal(value, source[f"loss.discriminator.{key}"]) for key, value in found.items())


def _golden_state() -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(GOLDEN / "ldm/kl_tiny_state.safetensors")


def test_everything_wrong_with_a_start_is_said_when_the_recipe_is_read(saved: Path, tmp_path: Path) -> None:
    assert "no such" in problems(tmp_path, {"init": str(tmp_path / "none")})
    assert "missing: 'freeze' keeps" in problems(tmp_path, {"freeze": ["encoder"]})
    assert "5: expected a path" in problems(tmp_path, {"init": 5})
    assert "did you mean 'encoder'" in problems(tmp_path, {"init": str(saved), "freeze": ["encodr"]})
    assert "expected a list of parts" in problems(tmp_path, {"init": str(saved), "freeze": "encoder"})
    everything = ["encoder", "bottleneck", "decoder"]
    assert "nothing is left to train" in problems(tmp_path, {"init": str(saved), "freeze": everything})
    assert "unknown option 'blocs'" in problems(tmp_path, {"init": str(saved), "encoder": {"blocs": 2}})


def test_frozen_kl_latents_stay_bit_equal(tmp_path: Path) -> None:
    before = tiny_kl()
    before.save_pretrained(tmp_path / "ours")
    after = trained(tmp_path, {"init": str(tmp_path / "ours"), "freeze": ["encoder", "bottleneck"]})
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(before.encode(images).latent, after.encode(images).latent)
    assert not torch.equal(before.last_layer, after.last_layer)
