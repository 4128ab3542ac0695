"""Estimators: the forward value is the code bit for bit, the backward pass is the table of the originals."""

import pytest
import torch

from smalti.nn.gradient import LEAST_LENGTH, gradient_copy, rotation, straight_through


def leaves(dtype=torch.float32):
    z, quantized = torch.randn(2, 2, 4, 5, 3, dtype=torch.float64)
    return z.to(dtype).requires_grad_(), (quantized * 3.0).to(dtype).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "estimator", [straight_through, rotation, gradient_copy, lambda z, q: gradient_copy(z, q, codebook_gradient=True)]
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


def in_code_space(vectors):
    """Columns of vectors (N, d) as latents (1, d, 1, N)."""
    return vectors.T[None, :, None].contiguous()


def rotated(z, quantized, gradient):
    """|q| / |z| R^T g of vectors, R written out as a matrix: I - 2 w w^T + 2 v u^T."""
    u, v = z / z.norm(), quantized / quantized.norm()
    w = (u + v) / (u + v).norm()
    matrix = torch.eye(len(z), dtype=z.dtype) - 2 * torch.outer(w, w) + 2 * torch.outer(v, u)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(len(z), dtype=z.dtype), rtol=0, atol=1e-12)
    torch.testing.assert_close(quantized.norm() / z.norm() * (matrix @ z), quantized, rtol=0, atol=1e-12)
    return quantized.norm() / z.norm() * (matrix.T @ gradient)


@pytest.mark.parametrize("width", [1, 2, 8, 64])
def test_rotation_hands_on_the_gradient_turned_back_and_stretched(width):
    z, quantized, gradient = torch.randn(3, 40, width, dtype=torch.float64)
    quantized = quantized * torch.sign((z * quantized).sum(dim=1, keepdim=True)) if width == 1 else 3.0 * quantized
    leaf = in_code_space(z).requires_grad_()
    rotation(leaf, in_code_space(quantized)).backward(in_code_space(gradient))
    expected = torch.stack([rotated(*vectors) for vectors in zip(z, quantized, gradient, strict=True)])
    torch.testing.assert_close(leaf.grad, in_code_space(expected), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
def test_rotation_keeps_the_angle_between_gradient_and_latent(scale):
    z, quantized, gradient = torch.randn(3, 20, 5, dtype=torch.float64)
    leaf = in_code_space(scale * z).requires_grad_()
    rotation(leaf, in_code_space(quantized)).backward(in_code_space(gradient))
    found = leaf.grad[0, :, 0].T
    cosine = torch.nn.functional.cosine_similarity
    torch.testing.assert_close(cosine(found, z), cosine(gradient, quantized), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("z", "quantized"),
    [
        ([0.0, 0.0], [1.0, 2.0]),
        ([1.0, 2.0], [0.0, 0.0]),
        ([0.0, 0.0], [0.0, 0.0]),
        ([1.0, 2.0], [-2.0, -4.0]),
        ([LEAST_LENGTH / 2, 0.0], [0.0, 1.0]),
    ],
)
def test_where_there_is_no_rotation_the_gradient_is_passed_as_it_is(z, quantized):
    leaf = in_code_space(torch.tensor([z])).requires_grad_()
    gradient = in_code_space(torch.tensor([[3.0, -1.0]]))
    rotation(leaf, in_code_space(torch.tensor([quantized]))).backward(gradient)
    assert torch.equal(leaf.grad, gradient)


def test_rotation_onto_itself_changes_nothing_and_gives_nothing_to_the_codebook():
    z, quantized = leaves(torch.float64)
    upstream = torch.randn_like(z)
    rotation(z, z.detach()).backward(upstream)
    torch.testing.assert_close(z.grad, upstream)
    rotation(z, quantized).backward(upstream)
    assert quantized.grad is None
