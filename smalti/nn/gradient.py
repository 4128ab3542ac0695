"""Gradients through a choice: what the forward pass takes from the codebook, the backward pass hands to the encoder.

| estimator                       | forward | gradient to z | gradient to the codebook |
|---------------------------------|---------|---------------|--------------------------|
| ``straight_through``            | q       | g             | 0                        |
| ``gradient_copy``               | q       | g             | 0, or g for the chosen rows |
| ``rotation``                    | q       | |q|/|z| R^T g | 0                        |
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LEAST_LENGTH = 1e-6  # of z, q and u + v below which there is no rotation


def straight_through(z: Tensor, quantized: Tensor) -> Tensor:
    """sg(q) + (z - sg z): equal to ``quantized`` bit for bit, with the gradient handed to ``z``, both (B, d, h, w).

    The usual form z + sg(q - z) is off by a rounding error in a third of the elements, so that decoding from indices
    would not reproduce the reconstruction (van den Oord et al., arXiv:1711.00937, for the estimator).

    Example:
        >>> import torch
        >>> z, q = torch.tensor([0.1], requires_grad=True), torch.tensor([3.0])
        >>> y = straight_through(z, q)
        >>> y.backward(); y.item(), z.grad.item()
        (3.0, 1.0)
    """
    return quantized.detach() + (z - z.detach())


def gradient_copy(z: Tensor, quantized: Tensor, *, codebook_gradient: bool = False) -> Tensor:
    """``quantized`` in the forward pass; the decoder's gradient is copied to ``z``, both with shape (B, d, h, w).

    With ``codebook_gradient`` the same gradient also reaches the chosen rows of the codebook, as when the decoder is
    fed the looked-up rows themselves and a hook copies their gradient to the encoder.

    Example:
        >>> import torch
        >>> z, q = torch.tensor([0.1], requires_grad=True), torch.tensor([3.0], requires_grad=True)
        >>> gradient_copy(z, q, codebook_gradient=True).backward(); z.grad.item(), q.grad.item()
        (1.0, 1.0)
    """
    if codebook_gradient:
        return quantized + (z - z.detach())
    return straight_through(z, quantized)


def rotation(z: Tensor, quantized: Tensor) -> Tensor:
    """``quantized`` bit for bit, as if z were rotated and stretched onto it; both with shape (B, d, h, w).

    With u = z / |z|, v = q / |q|, w = (u + v) / |u + v| it is R = I - 2 w w^T + 2 v u^T, and q = |q| / |z| R z. R and
    the factor are constants: the gradient to z is |q| / |z| R^T g, at the angle to z that g has to q (Fifty et
    al., arXiv:2410.06424). Where z or q is 0, or they point in opposite directions, there is no such R, and z gets g.

    Example:
        >>> z = torch.tensor([[[[2.0]], [[0.0]]]], requires_grad=True)
        >>> q, g = torch.tensor([[[[0.0]], [[1.0]]]]), torch.tensor([[[[0.0]], [[3.0]]]])
        >>> (rotation(z, q) * g).sum().backward()
        >>> z.grad.flatten().round(decimals=5)  # what points along q at q, points along z at z
        tensor([1.5000, 0.0000])
    """
    found: Tensor = _Rotation.apply(z, quantized.detach())  # type: ignore[no-untyped-call]
    return found


class _Rotation(torch.autograd.Function):
    """(z, q), both (B, d, h, w) -> q, and the gradient |q| / |z| R^T g to z."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, quantized: Tensor) -> Tensor:
        ctx.save_for_backward(z, quantized)
        return quantized.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        z, quantized = ctx.saved_tensors
        length, target = z.norm(dim=1, keepdim=True), quantized.norm(dim=1, keepdim=True)
        u, v = z / length.clamp(min=LEAST_LENGTH), quantized / target.clamp(min=LEAST_LENGTH)
        middle = u + v
        half = middle.norm(dim=1, keepdim=True)
        w = middle / half.clamp(min=LEAST_LENGTH)
        turned = gradient - 2 * w * _dot(w, gradient) + 2 * u * _dot(v, gradient)
        exists = (length > LEAST_LENGTH) & (target > LEAST_LENGTH) & (half > LEAST_LENGTH)
        return torch.where(exists, target / length.clamp(min=LEAST_LENGTH) * turned, gradient), None


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(dim=1, keepdim=True)
