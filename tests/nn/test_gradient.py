"""Estimators: the forward value is the code bit for bit, the backward pass is the table of the originals."""

import pytest
import torch

from smalti.nn.gradient import gradient_copy, straight_through


def leaves(dtype=torch.float32):
    z, quantized = torch.randn(2, 2, 4, 5, 3, dtype=torch.float64)
    return z.to(dtype).requires_grad_(), (quantized * 3.0).to(dtype).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "estimator", [straight_through, gradient_copy, lambda z, q: gradient_copy(z, q, codebook_gradient=True)]
)
def test_forward_is_the_code_bit_for_bit(estimator, dtype):
    z, quantized = leaves(dtype)
    assert torch.equal(estimator(z, quantized), quantized)
    assert not torch.equal(z + (quantized - z), quantized), "the usual form would do, and this test would be idle"


@pytest.mark.parametrize("codebook_gradient", [False, True])
def test_gradient_reaches_the_encoder_and_only_if_asked_the_codebook(codebook_gradient):
    z, quantized = leaves()
    upstream = torch.randn_like(z)
    gradient_copy(z, quantized, codebook_gradient=codebook_gradient).backward(upstream)
    assert torch.equal(z.grad, upstream)
    assert torch.equal(quantized.grad, upstream) if codebook_gradient else quantized.grad is None


def test_straight_through_gives_nothing_to_the_codebook():
    z, quantized = leaves()
    straight_through(z, quantized).sum().backward()
    assert torch.equal(z.grad, torch.ones_like(z))
    assert quantized.grad is None
