"""LFQ: the signs of a latent are its code."""

import pytest
import torch

from smalti.losses.codebook import CodebookLoss
from smalti.losses.commitment import CommitmentLoss
from smalti.quantizers.lfq import LFQ


def latents(channels, dtype=torch.float64):
    return torch.randn(3, channels, 5, 4, dtype=dtype, generator=torch.Generator().manual_seed(0))


def test_codes_are_signs_and_indices_their_binary_number():
    z = latents(10)
    record = LFQ(channels=10).double()(z)
    assert torch.equal(record.quantized, torch.sign(z))
    assert torch.equal(record.z, z)
    written = [int("".join("1" if value > 0 else "0" for value in reversed(token))) for token in record.tokens]
    assert record.indices.flatten().tolist() == [int(str(number), 2) for number in written]


def test_1024_codes_are_found_again():
    quantizer = LFQ(channels=10).eval()
    everything = torch.arange(1024).view(1, 32, 32)
    codes = quantizer.lookup(everything)
    assert quantizer.size == 1024 == len(codes.permute(0, 2, 3, 1).reshape(-1, 10).unique(dim=0))
    assert torch.equal(codes.abs(), torch.ones_like(codes))
    assert torch.equal(quantizer(0.3 * codes).indices, everything)
    assert torch.equal(quantizer(0.3 * codes).latent, codes)


def test_zero_of_either_sign_is_the_positive_bit():
    record = LFQ(channels=2)(torch.tensor([0.0, -0.0]).view(1, 2, 1, 1))
    assert record.quantized.flatten().tolist() == [1.0, 1.0]
    assert record.indices.item() == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lookup_equals_the_latent_bit_for_bit(dtype):
    quantizer = LFQ(channels=7).to(dtype)
    record = quantizer.eval()(latents(7, dtype))
    assert record.latent.dtype == dtype
    assert torch.equal(quantizer.lookup(record.indices), record.latent)
    assert torch.equal(quantizer.train()(latents(7, dtype)).latent, record.latent)


def test_gradient_is_handed_straight_through():
    z = latents(7).requires_grad_()
    weights = torch.randn_like(z)
    assert torch.equal(torch.autograd.grad(LFQ(channels=7).double()(z).latent, z, weights)[0], weights)


def test_62_bits_are_the_most():
    quantizer = LFQ(channels=62)
    record = quantizer.eval()(latents(62))
    assert quantizer.size == 2**62
    assert record.indices.max() > 2**60
    assert torch.equal(quantizer.lookup(record.indices).double(), record.latent)
    quantizer.update([record])
    assert quantizer.usage() == [{}]
    assert torch.equal(quantizer.mean(), torch.zeros(62))
    for bits in (63, 10**12, 0):
        with pytest.raises(ValueError, match=f"channels={bits}: expected 1 to 62 bits"):
            LFQ(channels=bits)


def test_a_latent_that_is_not_finite_has_no_code():
    z = latents(4)
    z[0, 1, 2, 3], z[1, 0, 0, 0] = float("nan"), -float("inf")
    record = LFQ(channels=4)(z)
    finite = torch.isfinite(z).all(dim=1)
    assert torch.equal(record.indices == -1, ~finite)
    assert torch.equal(torch.isnan(record.latent).all(dim=1), ~finite)


def test_mean_is_that_of_the_codes_in_use():
    quantizer = LFQ(channels=5).double()
    assert torch.equal(quantizer.mean(), torch.zeros(5, dtype=torch.float64))
    record = quantizer(latents(5) + 0.5)
    quantizer.update([record])
    torch.testing.assert_close(quantizer.mean(), record.quantized.mean(dim=(0, 2, 3)))


def test_commitment_draws_latents_to_their_codes():
    z = latents(4).requires_grad_()
    quantizer = LFQ(channels=4).double()
    loss = CommitmentLoss()({"bits": quantizer(z)})
    torch.testing.assert_close(torch.autograd.grad(loss, z)[0], 2 * (z - z.sign()).detach() / z.numel())
    with pytest.raises(ValueError, match="codebook does not apply"):
        CodebookLoss()({"bits": quantizer(z)})


@pytest.mark.parametrize("group", [0, 4, 10, 19])
def test_groups_divide_the_bits(group):
    with pytest.raises(ValueError, match=f"entropy_group={group}: expected a divisor of 18 bits up to 18: 1, 2, 3, 6"):
        LFQ(channels=18, entropy_group=group)
