"""The discriminator beside a tokenizer comes along, of every published shape."""

import pytest
import torch

from smalti.interop._discriminator import import_discriminator
from smalti.registry import UserError
from tests.conftest import GOLDEN
from tests.interop.checkpoints import filled, manifests

PREFIX = "loss.discriminator."
WHOLE = ("patchgan_ndf64_n3_batchnorm", "patchgan_ndf64_n3_actnorm")
INSIDE = ("ldm_kl_f8_full_with_loss", "ldm_vq_f8_full_with_loss", "taming_vqgan_imagenet_f16_1024_full_with_loss")


@pytest.mark.parametrize("name", [*WHOLE, *INSIDE])
def test_every_published_discriminator_comes_in_bit_equal(name: str) -> None:
    state = filled(manifests()[name])
    if name in INSIDE:
        state = {key.removeprefix(PREFIX): value for key, value in state.items() if key.startswith(PREFIX)}
    found = import_discriminator(state, 3).state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in found.items())


@torch.no_grad()
def test_it_gives_the_originals_logits(golden) -> None:
    tensors = golden("fqgan/patchgan_n3.safetensors")
    state = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
    discriminator = import_discriminator(state, 3)
    after = {key.removeprefix("io.after."): value for key, value in tensors.items() if key.startswith("io.after.")}
    discriminator.load_state_dict({**state, **after})
    logits = discriminator.eval()(tensors["io.x"]).logits
    torch.testing.assert_close(logits, tensors["io.eval.out"], atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_a_stylegan_comes_in_too_without_its_filters(golden) -> None:
    tensors = golden("fqgan/stylegan_disc_32.safetensors")
    state = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
    logits = import_discriminator(state, 3)(tensors["io.x"]).logits
    torch.testing.assert_close(logits, tensors["io.out"], rtol=0.0, atol=2e-5)
    with pytest.raises(UserError, match=r"does not fit the layout of stylegan:\n  missing blocks\.3\.net\.2\.weight"):
        import_discriminator({key: value for key, value in state.items() if key != "blocks.3.net.2.weight"}, 3)
    state["blocks.3.downsample.0.f"] = torch.tensor([1.0, 1.0])
    with pytest.raises(
        UserError, match=r"blocks\.3\.downsample\.0\.f is \[1\.0, 1\.0\]: expected \[1\.0, 2\.0, 1\.0\]"
    ):
        import_discriminator(state, 3)


def test_channels_beyond_the_image_are_a_condition(golden) -> None:
    state = golden("ldm/kl_tiny_state.safetensors")
    state = {key.removeprefix(PREFIX): value for key, value in state.items() if key.startswith(PREFIX)}
    assert import_discriminator(state, 3).condition_channels == 0
    state["main.0.weight"] = torch.zeros(64, 5, 4, 4)
    assert import_discriminator(state, 3).condition_channels == 2


def test_another_discriminator_and_wrong_keys_are_refused(golden) -> None:
    with pytest.raises(UserError, match=r"expected a PatchGAN.* or the stylegan.*; found blocks\.0\.weight"):
        import_discriminator({"blocks.0.weight": torch.zeros(1)}, 3)
    state = filled(manifests()["patchgan_ndf64_n3_actnorm"])
    state["main.5.wait"] = state.pop("main.5.weight")
    with pytest.raises(UserError, match=r"missing main\.5\.weight") as caught:
        import_discriminator(state, 3)
    assert "unexpected main.5.wait" in str(caught.value)
    assert GOLDEN.is_dir()
