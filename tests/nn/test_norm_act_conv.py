"""Norm, activation and convolution as one step: the plain chain's numbers bit for bit, a third of its memory."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smalti.models.conv import ConvDecoder, ConvEncoder
from smalti.nn.blocks import ResBlock
from smalti.nn.norm_act_conv import norm_act_conv

KINDS = ("nothing", "activations", "blocks")


def gradients(run, x, *modules, dtype=None):
    """Output and all gradients of sum(run(x) * fixed weights)."""
    leaf = x.detach().requires_grad_()
    with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        output = run(leaf)
    parameters = [p for module in modules for p in module.parameters()]
    weights = torch.linspace(-1, 1, output.numel()).view_as(output).to(output.dtype)
    return [output, *torch.autograd.grad(output, [leaf, *parameters], weights)]


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
def test_equals_the_plain_chain_bit_for_bit(autocast, bias, stride):
    x, norm = torch.randn(2, 8, 6, 5), nn.GroupNorm(4, 8)
    conv = nn.Conv2d(8, 6, 3, stride=stride, padding=1, bias=bias)
    nn.init.normal_(norm.weight)
    ours = gradients(lambda x: norm_act_conv(x, norm, conv), x, norm, conv, dtype=autocast)
    plain = gradients(lambda x: conv(F.silu(norm(x))), x, norm, conv, dtype=autocast)
    for one, other in zip(ours, plain, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_gradient_is_exact():
    norm, conv = nn.GroupNorm(2, 4).double(), nn.Conv2d(4, 2, 3, padding=1).double()
    x = torch.randn(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: norm_act_conv(x, norm, conv), (x,))


@pytest.mark.parametrize("frozen", ["norm", "conv", "x", "x and norm"])
def test_what_is_frozen_gets_no_gradient_and_changes_no_other(frozen):
    norm, conv = nn.GroupNorm(2, 4), nn.Conv2d(4, 2, 3, padding=1)
    norm.requires_grad_("norm" not in frozen)
    conv.requires_grad_("conv" not in frozen)
    x = torch.randn(1, 4, 3, 3)
    found = []
    for run in (lambda x: norm_act_conv(x, norm, conv), lambda x: conv(F.silu(norm(x)))):
        leaf = x.clone().requires_grad_("x" not in frozen)
        asked = [p for p in (leaf, *norm.parameters(), *conv.parameters()) if p.requires_grad]
        found.append(torch.autograd.grad(run(leaf).sum(), asked))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def saved_units(recompute):
    """What a residual block keeps, in units of one activation; parameters do not count."""
    block, x = ResBlock(32, 32, groups=8, recompute=recompute), torch.randn(1, 32, 24, 24, requires_grad=True)
    own = {p.data_ptr() for p in block.parameters()}
    saved = {}

    def note(tensor):
        if tensor.data_ptr() not in own:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = block(x)
    assert kept.shape == x.shape
    return sum(saved.values()) / (x.numel() * x.element_size())


def test_a_residual_block_keeps_two_activations_or_one():
    assert saved_units("nothing") >= 5.9
    assert saved_units("activations") <= 2.1
    assert saved_units("blocks") <= 1.1


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("recompute", KINDS[1:])
def test_encoder_and_decoder_train_equally_whatever_is_recomputed(recompute, dropout):
    def run(kind):
        torch.manual_seed(1)
        shape = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "groups": 4, "dropout": dropout, "recompute": kind}
        encoder = ConvEncoder(**shape, out_channels=4)
        decoder = ConvDecoder(**shape, latent_channels=4, z_channels=None)
        state = {**encoder.state_dict(), **decoder.state_dict()}
        return list(state), gradients(lambda x: decoder(encoder(x)), torch.randn(1, 3, 8, 8), encoder, decoder)

    keys, found = run(recompute)
    plain_keys, plain = run("nothing")
    assert keys == plain_keys
    assert all(torch.equal(*pair) for pair in zip(found, plain, strict=True))


def test_batch_statistics_are_not_recomputed():
    with pytest.raises(ValueError, match="batch statistics"):
        ResBlock(4, 4, kind="batch", recompute="blocks")
    with pytest.raises(ValueError, match="recompute='all'"):
        ResBlock(4, 4, groups=2, recompute="all")


def test_without_gradients_nothing_is_kept():
    norm, conv = nn.GroupNorm(2, 4), nn.Conv2d(4, 2, 3)
    with torch.no_grad():
        assert norm_act_conv(torch.randn(1, 4, 5, 5), norm, conv).grad_fn is None
