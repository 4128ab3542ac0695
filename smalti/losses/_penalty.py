"""Penalties on how steep a critic is: slopes with respect to images, measured for each sample or for each pixel.

They run in full precision with autocast off, and keep the graph for a second backward pass. torch's fused attention
has no second derivative, so attention inside the critic takes the plain ``MATH`` path meanwhile. ``torch.compile``
refuses a second backward pass: leave the critic uncompiled, or take ``approximate_r1``, which needs only the first.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from smalti.losses import Loss, Reduction
from smalti.losses._reduction import (
    EMPTY_MASK_EPS,
    at_least_float32,
    broadcast_weight,
    check_choice,
    check_reduction,
    reduce,
)
from smalti.nn.precision import full_precision
from smalti.outputs import DiscriminatorOutput

Norm = Literal["sample", "pixel"]
Sigma = Annotated[float, Field(gt=0.0)]
Critic = Callable[[Tensor], DiscriminatorOutput]
Measure = Callable[[Tensor, tuple[int, ...]], Tensor]


def image_gradient(discriminator: Critic, images: Tensor) -> Tensor:
    """g = d sum(D(x)) / dx with the shape (B, ...) of the images x, in at least float32.

    The logits of all patches of an image are added up, so the slope of a patch critic grows with its number of
    patches. Without autograd (a term that is only logged) the value is computed all the same, without a graph.
    """
    keep_graph = torch.is_grad_enabled()
    with torch.enable_grad(), full_precision(), sdpa_kernel(SDPBackend.MATH):
        x = at_least_float32(images)
        x = x if x.requires_grad else x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(discriminator(x).logits.sum(), x, create_graph=keep_graph)
    return gradient


def squared_length(gradient: Tensor, dims: tuple[int, ...]) -> Tensor:
    """||g||^2 over ``dims`` of gradients (B, ...)."""
    return gradient.square().sum(dim=dims)


def squared_deviation(gradient: Tensor, dims: tuple[int, ...]) -> Tensor:
    """(||g|| - 1)^2 over ``dims`` of gradients (B, ...); its slope is 0, not nan, where g is 0."""
    length: Tensor = torch.linalg.vector_norm(gradient, dim=dims)
    return (length - 1.0).square()


def slope_penalty(
    measure: Measure,
    discriminator: Critic,
    images: Tensor,
    mask: Tensor | None = None,
    *,
    norm: Norm = "sample",
    reduction: Reduction = "mean",
) -> Tensor:
    """``measure`` of the critic's gradient at ``images``, reduced.

    Args:
        measure: (gradient, dims) -> values, the length of the gradient taken over ``dims``.
        discriminator: images -> ``DiscriminatorOutput``.
        images: with shape (B, ...).
        mask: (B,), (B, 1, H, W), or the shape of the images; where the penalty acts; its mean divides the values. With
            ``sample`` it multiplies the gradient. With ``pixel`` it weighs the pixels, each by its largest channel,
            and the share of the others in that multiplies the gradient: a channel at 0 takes no part.
        norm: ``sample``: one length for each image, values (B,); ``pixel``: one for each pixel, values (B, H, W).
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).

    Raises:
        ValueError: for an unknown option value or a mask that does not fit.
    """
    check_choice("norm", norm, Norm)
    check_reduction(reduction, "weighted_mean", False)
    gradient = image_gradient(discriminator, images)
    dims = (1,) if norm == "pixel" else tuple(range(1, gradient.ndim))
    if mask is None:
        return reduce(measure(gradient, dims), reduction=reduction)
    mask = broadcast_weight(mask, gradient, name="mask")
    if norm == "sample":
        return reduce(measure(gradient * mask, dims) / (mask.mean() + EMPTY_MASK_EPS), reduction=reduction)
    largest = mask.amax(dim=1, keepdim=True)
    values = measure(gradient * torch.where(largest > 0.0, mask / largest, 1.0), dims) * largest[:, 0]
    # the mean of the mask and not of its largest channels, so that masks that take channels out scale as in `sample`
    return reduce(values / (mask.mean() + EMPTY_MASK_EPS) if reduction == "mean" else values, reduction=reduction)


def interpolate(real: Tensor, fake: Tensor, epsilon: Tensor | None = None) -> Tensor:
    """x = e real + (1 - e) fake with shape (B, ...), e uniform in [0, 1) for each sample unless ``epsilon`` is given.

    Raises:
        ValueError: for unequal shapes, as a last, smaller batch of one of them would have.
    """
    if real.shape != fake.shape:
        raise ValueError(f"real has shape {tuple(real.shape)}, fake {tuple(fake.shape)}: must be equal to interpolate")
    per_sample = (real.shape[0], *[1] * (real.ndim - 1))
    if epsilon is None:
        epsilon = torch.rand(per_sample, dtype=real.dtype, device=real.device)
    epsilon = epsilon.to(real.dtype).reshape(per_sample)
    return epsilon * real + (1.0 - epsilon) * fake


def response_penalty(
    discriminator: Critic, images: Tensor, noise: Tensor | None, *, sigma: float, reduction: Reduction
) -> Tensor:
    """((D(x + s n) - D(x)) / s)^2 of images x (B, ...) and normal noise n of their shape, values (B,), reduced."""
    check_sigma(sigma)
    images = at_least_float32(images)
    noise = torch.randn_like(images) if noise is None else noise.to(images.dtype)
    with full_precision():
        before, after = (discriminator(x).logits for x in (images, images + sigma * noise))
    # a small difference of large numbers: half precision would leave nothing of it
    change = (after - before).reshape(images.shape[0], -1).sum(dim=1)
    return reduce((change / sigma).square(), reduction=reduction)


def check_sigma(sigma: float) -> None:
    """Raises ValueError unless ``sigma`` is above 0."""
    if not sigma > 0.0:
        raise ValueError(f"sigma={sigma!r}: expected a number above 0")


class SlopePenalty(Loss):
    """Base of the penalties on the critic's slope.

    Args:
        norm: ``sample`` takes one length for each image, ``pixel`` one for each pixel.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
    """

    batch_statistics: ClassVar[Mapping[str, str]] = {"mask": "under a `mask` its mean"}

    def __init__(self, *, norm: Norm = "sample", reduction: Reduction = "mean") -> None:
        super().__init__()
        check_choice("norm", norm, Norm)
        check_reduction(reduction, "weighted_mean", False)
        self.norm: Norm = norm
        self.reduction: Reduction = reduction

    def statistics(self) -> Mapping[str, str]:
        """The mean of the mask, unless pixels under it are added up."""
        added_up = self.norm == "pixel" and self.reduction != "mean"
        return {name: text for name, text in self.batch_statistics.items() if not (added_up and name == "mask")}


class InterpolatedPenalty(SlopePenalty):
    """Base of the penalties between real and generated images.

    Args:
        norm: ``sample`` takes one length for each image, ``pixel`` one for each pixel.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
    """

    @abstractmethod
    def measure(self, gradient: Tensor, dims: tuple[int, ...]) -> Tensor:
        """What is to be small, of gradients (B, ...) whose length is taken over ``dims``."""

    def forward(
        self,
        discriminator: Critic,
        real: Tensor,
        fake: Tensor,
        epsilon: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The penalty at e real + (1 - e) fake.

        Args:
            discriminator: images -> ``DiscriminatorOutput``.
            real: with shape (B, ...).
            fake: same shape.
            epsilon: share of the real image, with shape (B,) or (B, 1, 1, 1); drawn uniformly if it is not given.
            mask: (B,), (B, 1, H, W), or the shape of the images: where the penalty acts.
        """
        images = interpolate(real, fake, epsilon)
        return slope_penalty(self.measure, discriminator, images, mask, norm=self.norm, reduction=self.reduction)


class ResponsePenalty(Loss):
    """Base of the penalties that need no second derivative.

    Args:
        sigma: size of the step that normal noise is multiplied by.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
    """

    def __init__(self, *, sigma: Sigma = 0.01, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_sigma(sigma)
        check_reduction(reduction, "weighted_mean", False)
        self.sigma = sigma
        self.reduction: Reduction = reduction
