"""The VQ-VAE that copies gradients by a hook and two backward passes: one pass gives the same, for less."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from smalti.losses.codebook import codebook_loss
from smalti.losses.commitment import commitment_loss
from smalti.losses.l1 import l1
from smalti.quantizers.nearest import Nearest


def encoder() -> nn.Sequential:
    """16 px to 4 x 4 x 8 channels; batch statistics as in training."""
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    for before, after in ((8, 16), (16, 24)):
        layers += [nn.Conv2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(24, 8, 1))


def decoder() -> nn.Sequential:
    layers: list[nn.Module] = [nn.ConvTranspose2d(8, 24, 1), nn.BatchNorm2d(24), nn.ReLU()]
    for before, after in ((24, 16), (16, 8)):
        layers += [nn.ConvTranspose2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(8, 3, 3, padding=1))


def step(state: Mapping[str, Tensor], x: Tensor, **options: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """One step in the original's units: name -> loss, and name -> gradient under the original's names."""
    parts = nn.ModuleDict(
        {
            "encoder": encoder(),
            "decoder": decoder(),
            "dict": Nearest(size=12, channels=8, estimator="gradient_copy", **options),
        }
    ).double()
    parts.load_state_dict({**parts.state_dict(), **state})
    record = parts["dict"](parts["encoder"](x))
    out = parts["decoder"](record.latent)
    losses = {
        "rec": l1(out, x),
        "e1": commitment_loss(record, channels="sum"),
        "e2": codebook_loss(record, channels="sum"),
    }
    (losses["rec"] + losses["e1"] + 0.25 * losses["e2"]).backward()
    gradients = {name: p.grad for name, p in parts.named_parameters() if p.grad is not None}
    return {"out": out, **losses}, gradients


@pytest.mark.parametrize("codebook_gradient", [True, False])
def test_one_pass_equals_the_two_of_the_original(golden, codebook_gradient: bool) -> None:
    tensors, state = golden("ldm/nakosung_step.safetensors"), golden("ldm/nakosung_state.safetensors")
    found, gradients = step(state, tensors["x"], codebook_gradient=codebook_gradient)
    torch.testing.assert_close(found["out"], tensors["out"], rtol=1e-9, atol=1e-12)
    for name in ("rec", "e1", "e2"):
        torch.testing.assert_close(found[name], tensors[f"loss_{name}"][0], rtol=1e-9, atol=0.0)
    expected = {key.removeprefix("grad."): value for key, value in tensors.items() if key.startswith("grad.")}
    if not codebook_gradient:
        expected["dict.weight"] = tensors["grad_ste.dict.weight"]
    assert set(gradients) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(gradients[name], value, rtol=1e-9, atol=1e-12)
