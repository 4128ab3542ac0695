"""SpatialNorm is its formula, and a decoder that has it sees the latent everywhere."""

import pytest
import torch
from torch.nn import functional as F

from smalti.models.conv import ConvDecoder, ConvEncoder
from smalti.nn.spatial_norm import SpatialNorm


def test_it_is_its_formula() -> None:
    norm = SpatialNorm(8, 3, groups=4).double()
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    x, latent = torch.randn(2, 8, 4, 6, dtype=torch.float64), torch.randn(2, 3, 2, 3, dtype=torch.float64)
    z = latent.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    parts = x.view(2, 4, -1)
    scaled = (parts - parts.mean(2, keepdim=True)) / (parts.var(2, correction=0, keepdim=True) + 1e-6).sqrt()
    plain = scaled.view_as(x) * norm.group.weight[:, None, None] + norm.group.bias[:, None, None]
    scale, shift = (F.conv2d(z, part.weight, part.bias) for part in (norm.scale, norm.shift))
    torch.testing.assert_close(norm(x, latent), scale * plain + shift, rtol=1e-12, atol=1e-12)


def test_recomputing_blocks_changes_nothing_and_other_uses_are_errors() -> None:
    options = {"latent_channels": 2, "z_channels": 3, "channels": 8, "multipliers": (1, 2), "blocks": 1, "groups": 4}
    plain = ConvDecoder(**options, norm="spatial", dropout=0.5, attention_levels=(1,))
    again = ConvDecoder(**options, norm="spatial", dropout=0.5, attention_levels=(1,), recompute="blocks")
    again.load_state_dict(plain.state_dict())
    latent = torch.randn(1, 2, 3, 2, requires_grad=True)
    found = []
    for decoder in (plain, again):
        torch.manual_seed(3)
        found.append(torch.autograd.grad(decoder(latent).square().sum(), [latent, decoder.last_layer]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    with pytest.raises(ValueError, match=r"recompute='activations': norm='spatial' keeps them"):
        ConvDecoder(**options, norm="spatial", recompute="activations")
    with pytest.raises(ValueError, match=r"norm='spatial': expected 'group', 'batch' or 'none'"):
        ConvEncoder(channels=8, groups=4, norm="spatial")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"groups=5: expected a divisor"):
        SpatialNorm(8, 2, groups=5)
