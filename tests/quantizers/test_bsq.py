"""BSQ: the corner of the cube in the unit sphere that is nearest to z / |z|."""

import pytest
import torch

from smalti.nn.code_search import nearest_code
from smalti.quantizers.bsq import BSQ


def latents(channels, dtype=torch.float64):
    return 3 * torch.randn(3, channels, 5, 4, dtype=dtype, generator=torch.Generator().manual_seed(0))


def test_the_code_is_the_nearest_of_all():
    quantizer, z = BSQ(channels=6).double().eval(), latents(6)
    record = quantizer(z)
    everything = quantizer.lookup(torch.arange(64).view(1, 1, 64))[0, :, 0].T
    torch.testing.assert_close(everything.norm(dim=1), torch.ones(64, dtype=torch.float64))
    assert len(everything.unique(dim=0)) == 64
    torch.testing.assert_close(record.z, z / z.norm(dim=1, keepdim=True))
    assert torch.equal(record.indices.flatten(), nearest_code(record.tokens, everything))


def test_1024_codes_are_found_again():
    quantizer = BSQ(channels=10).eval()
    everything = torch.arange(1024).view(1, 32, 32)
    codes = quantizer.lookup(everything)
    assert len(codes.permute(0, 2, 3, 1).reshape(-1, 10).unique(dim=0)) == 1024
    assert torch.equal(quantizer(7 * codes).indices, everything)
    assert torch.equal(quantizer(7 * codes).latent, codes)


@pytest.mark.parametrize("channels", [1, 3, 7, 18])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lookup_equals_the_latent_bit_for_bit(channels, dtype):
    quantizer = BSQ(channels=channels).to(dtype)
    record = quantizer.eval()(latents(channels, dtype))
    assert record.latent.dtype == dtype
    assert torch.equal(quantizer.lookup(record.indices), record.latent)
    assert torch.equal(quantizer.train()(latents(channels, dtype)).latent, record.latent)


def test_gradient_is_that_of_the_unit_vector():
    z = latents(5).requires_grad_()
    g = torch.randn_like(z)
    found = torch.autograd.grad(BSQ(channels=5).double()(z).latent, z, g)[0]
    length = z.detach().norm(dim=1, keepdim=True)
    u = z.detach() / length
    torch.testing.assert_close(found, (g - u * (u * g).sum(dim=1, keepdim=True)) / length)


def test_a_vector_of_zeros_has_a_code_and_a_finite_gradient():
    z = torch.zeros(1, 3, 1, 1, requires_grad=True)
    record = BSQ(channels=3)(z)
    assert record.indices.item() == 7
    record.latent.sum().backward()
    assert torch.isfinite(z.grad).all()


def test_a_latent_that_is_not_finite_has_no_code():
    z = latents(4)
    z[0, 1, 2, 3], z[1, 0, 0, 0] = float("nan"), -float("inf")
    record = BSQ(channels=4)(z)
    finite = torch.isfinite(z).all(dim=1)
    assert torch.equal(record.indices == -1, ~finite)
    assert torch.equal(torch.isnan(record.latent).all(dim=1), ~finite)


def test_scale_of_the_latent_does_not_matter_not_even_a_huge_one():
    z = latents(6, torch.float32)
    quantizer = BSQ(channels=6)
    for factor in (1e-3, 1e3, 1e30):
        assert torch.equal(quantizer(factor * z).indices, quantizer(z).indices)


def test_63_bits_are_refused():
    with pytest.raises(ValueError, match="channels=63: expected 1 to 62 bits"):
        BSQ(channels=63)
