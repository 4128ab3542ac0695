"""Gradients through a choice: what the forward pass takes from the codebook, the backward pass hands to the encoder.

| estimator                       | forward | gradient to z | gradient to the codebook |
|---------------------------------|---------|---------------|--------------------------|
| ``straight_through``            | q       | g             | 0                        |
| ``gradient_copy``               | q       | g             | 0, or g for the chosen rows |
"""

from torch import Tensor


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
