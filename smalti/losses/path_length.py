"""Path length: a step in the latent space is to move the image by a fixed amount, whatever its place and direction."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from smalti.losses import Loss
from smalti.losses._reduction import at_least_float32
from smalti.nn.distributed import all_reduce_mean
from smalti.nn.precision import full_precision
from smalti.outputs import GeneratorOutput, LossValue

Generator = Callable[[Tensor], Tensor | GeneratorOutput]


def path_lengths(generator: Generator, latents: Tensor, noise: Tensor | None = None) -> Tensor:
    """a = sqrt(mean_l sum_c J^2) with J = d sum(image y) / d latent, y = n / sqrt(H W), n standard normal.

    Args:
        generator: latents -> images (n, C, H, W). It may return a ``GeneratorOutput`` instead: then J is taken at its
            ``latents`` (StyleGAN's w), made from what it was given (z).
        latents: with shape (n, C) or (n, L, C), the sum running over C.
        noise: n, with the shape of the images; drawn if it is not given.

    Returns:
        With shape (n,).

    Raises:
        ValueError: if the images do not depend on the latents.

    Example:
        >>> mapping = lambda z: (2.0 * z)[:, :, None, None]
        >>> path_lengths(mapping, torch.zeros(1, 2), torch.ones(1, 2, 1, 1))
        tensor([2.8284])
    """
    keep_graph = torch.is_grad_enabled()
    with torch.enable_grad(), full_precision():
        start = at_least_float32(latents)
        start = start if start.requires_grad else start.detach().requires_grad_()
        made = generator(start)
        images, at = (made.images, made.latents) if isinstance(made, GeneratorOutput) else (made, start)
        noise = torch.randn_like(images) if noise is None else noise.to(images.dtype)
        projected = (images * noise).sum() / (images.shape[-2] * images.shape[-1]) ** 0.5
        (slope,) = torch.autograd.grad(projected, at, create_graph=keep_graph, allow_unused=True)
    if slope is None:
        raise ValueError("the generator's images do not depend on its latents: there is no path to measure")
    # vector_norm, not sqrt of a sum: the root of 0 has an infinite slope, nan in the second backward pass
    lengths: Tensor = torch.linalg.vector_norm(slope.flatten(1), dim=1)
    layers = slope[0].numel() // slope.shape[-1]
    return lengths / math.sqrt(layers)


def path_length(lengths: Tensor, mean: Tensor, *, decay: float = 0.01) -> tuple[Tensor, Tensor]:
    """The penalty mean((a - m)^2), a scalar, and the new running mean m = mean + decay (mean(a) - mean).

    The gradient also flows through m, as in NVIDIA's code.

    Args:
        lengths: a, with shape (n,).
        mean: running mean of earlier batches, a scalar.
        decay: share of this batch in the running mean.

    Example:
        >>> penalty, mean = path_length(torch.tensor([1.0, 3.0]), torch.tensor(0.0), decay=0.5)
        >>> penalty, mean
        (tensor(2.), tensor(1.))
    """
    mean = mean + decay * (lengths.mean() - mean)
    return (lengths - mean).square().mean(), mean.detach()


class PathLength(Loss):
    """Path length regulariser, L = mean((a - m)^2), a = ||J^T y|| (Karras et al., arXiv:1912.04958).

    For the generator's phase: ``{type: path_length, weight: 2, every: 4, shrink: 2}``. It makes images of its own from
    ``latents``. The running mean m changes in ``update`` only and is saved with the checkpoint.

    Args:
        decay: share of a batch in the running mean, in (0, 1].
        shrink: the penalty looks at the first B // ``shrink`` latents, at least one.
    """

    batch_statistics: ClassVar[Mapping[str, str]] = {"": "the mean length, a share of which is in the running mean"}

    mean: Tensor

    def __init__(
        self, *, decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.01, shrink: Annotated[int, Field(ge=1)] = 1
    ) -> None:
        super().__init__()
        if not 0.0 < decay <= 1.0:
            raise ValueError(f"decay={decay!r}: expected a number in (0, 1]")
        if shrink < 1:
            raise ValueError(f"shrink={shrink!r}: expected a whole number of at least 1")
        self.decay = decay
        self.shrink = shrink
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, generator: Generator, latents: Tensor, noise: Tensor | None = None) -> LossValue:
        """The penalty, with the mean ``length`` of this batch as a part.

        Args:
            generator: latents -> images (n, C, H, W), or -> ``GeneratorOutput``.
            latents: with shape (B, C) or (B, L, C); map ``batch.noise`` where the generator starts from noise.
            noise: what images are projected on, with the shape of n images; drawn if it is not given.
        """
        count = max(1, latents.shape[0] // self.shrink)
        lengths = path_lengths(generator, latents[:count], noise)
        penalty, _ = path_length(lengths, self.mean.to(lengths.dtype), decay=self.decay)
        return LossValue(total=penalty, parts={"length": lengths.detach().mean()})

    def update(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Moves the running mean towards the mean ``length`` of the micro-batches' ``records``, over all ranks."""
        if records:
            length = all_reduce_mean(torch.stack([record["length"] for record in records]).mean())
            self.mean.lerp_(length.to(self.mean.dtype), self.decay)
