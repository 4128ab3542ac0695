"""Blocks: shapes, options and the formulas behind the fused calls."""

import pytest
import torch
from torch.nn import functional as F

from smalti.nn.attention import SpatialAttention
from smalti.nn.blocks import Downsample, ResBlock, Upsample, norm


def test_attention_equals_its_formula():
    layer, x = SpatialAttention(8, groups=2).double(), torch.randn(2, 8, 3, 5, dtype=torch.float64)
    q, k, v = (part(layer.norm(x)).flatten(2) for part in (layer.q, layer.k, layer.v))
    weights = torch.softmax(torch.einsum("bcq,bck->bqk", q, k) / 8**0.5, dim=2)
    expected = x + layer.out(torch.einsum("bqk,bck->bcq", weights, v).view_as(x))
    torch.testing.assert_close(layer(x), expected)


def test_attention_never_holds_the_attention_matrix():
    layer, tokens = SpatialAttention(8, groups=2), 16 * 16
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        layer(torch.randn(1, 8, 16, 16))
    assert max(saved) < tokens * tokens


@pytest.mark.parametrize("kind", ["group", "batch"])
@pytest.mark.parametrize("widths", [(8, 8), (8, 16)])
def test_residual_block_keeps_the_size(kind, widths):
    block = ResBlock(*widths, kind=kind, groups=4, dropout=0.1)
    assert block(torch.randn(2, widths[0], 5, 3)).shape == (2, widths[1], 5, 3)


def test_residual_block_equals_its_formula():
    block, x = ResBlock(8, 12, groups=4).double(), torch.randn(1, 8, 4, 4, dtype=torch.float64)
    h = block.conv1(F.silu(F.group_norm(x, 4, block.norm1.weight, block.norm1.bias, 1e-6)))
    h = block.conv2(F.silu(F.group_norm(h, 4, block.norm2.weight, block.norm2.bias, 1e-6)))
    torch.testing.assert_close(block(x), block.shortcut(x) + h)


def test_downsampling_pads_right_and_bottom_only():
    down = Downsample(1)
    down.conv.weight.data.fill_(1.0)
    down.conv.bias.data.zero_()
    image = torch.zeros(1, 1, 4, 4)
    image[..., 0, 0] = 1.0
    expected = torch.zeros(1, 1, 2, 2)
    expected[..., 0, 0] = 1.0
    assert torch.equal(down(image), expected)
    image = torch.ones(1, 1, 4, 4)
    assert torch.equal(down(image)[0, 0], torch.tensor([[9.0, 6.0], [6.0, 4.0]]))


def test_pooling_and_repetition_have_no_parameters_and_undo_each_other():
    down, up = Downsample(3, "pool"), Upsample(3, "pool")
    assert not [*down.parameters(), *up.parameters()]
    x = torch.randn(2, 3, 4, 6)
    torch.testing.assert_close(down(up(x)), x)


@pytest.mark.parametrize("make", [lambda: Downsample(4, "blur"), lambda: Upsample(4, "blur")])
def test_unknown_resampling_is_an_error(make):
    with pytest.raises(ValueError, match="resample='blur': expected 'conv' or 'pool'"):
        make()


def test_norm_names_what_does_not_fit():
    with pytest.raises(ValueError, match="groups=32: expected a divisor of every width, and one width is 48"):
        norm("group", 48)
    with pytest.raises(ValueError, match="norm='layer': expected 'group', 'batch' or 'none'"):
        norm("layer", 32)


@pytest.mark.parametrize("recompute", ["nothing", "activations"])
def test_one_image_of_one_pixel_is_what_it_is_beside_another(recompute):
    block, x = ResBlock(8, 8, groups=8, recompute=recompute), torch.randn(2, 8, 1, 1, requires_grad=True)
    alone = block(x[:1])
    torch.testing.assert_close(alone, block(x)[:1])
    alone.sum().backward()
    assert x.grad.isfinite().all()
