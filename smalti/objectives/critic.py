"""What a critic's numbers say beside its loss: how steep it is, how often it is right, how varied the images are.

Measured at log steps, as the critic is trained (each rank has its own batch statistics), and nothing is changed by it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from smalti.outputs import DiscriminatorOutput

MOST = 256  # images whose distances are looked at


def critic_measures(judge: Callable[[Tensor], DiscriminatorOutput], real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """Names -> scalars, for real and generated images of one shape (B, C, H, W).

    ``critic/estimate``: mean score of real less that of generated images, the Wasserstein distance times the unknown
    Lipschitz constant of the critic; ``critic/slope_real``, ``_fake``, ``_between``: mean length of the critic's
    gradient there; ``critic/slope_max``: the largest of all, a lower bound of that constant;
    ``critic/estimate_per_slope``: the estimate divided by it; ``critic/accuracy_real``, ``_fake``: shares of logits on
    the right side of 0; ``critic/diversity``: mean distance of two generated images over that of two real ones;
    ``critic/apart``: mean distance of a generated and a real image over the same.
    """
    if real.shape != fake.shape:
        return {}
    shape = (len(real), *[1] * (real.ndim - 1))
    share = torch.linspace(0.0, 1.0, len(real), dtype=real.dtype, device=real.device).reshape(shape)
    between = share * real + (1.0 - share) * fake
    slopes, logits = zip(*(_slopes(judge, images) for images in (real, fake, between)), strict=True)
    steepest = torch.stack([slope.max() for slope in slopes]).max()
    estimate = logits[0].mean() - logits[1].mean()
    return {
        "critic/estimate": estimate,
        "critic/estimate_per_slope": estimate / steepest.clamp_min(1e-12),
        "critic/slope_real": slopes[0].mean(),
        "critic/slope_fake": slopes[1].mean(),
        "critic/slope_between": slopes[2].mean(),
        "critic/slope_max": steepest,
        "critic/accuracy_real": (logits[0] > 0).to(real.dtype).mean(),
        "critic/accuracy_fake": (logits[1] < 0).to(real.dtype).mean(),
        "critic/diversity": spread(fake) / spread(real).clamp_min(1e-12),
        "critic/apart": between_sets(fake, real) / spread(real).clamp_min(1e-12),
    }


@contextmanager
def buffers_kept(network: nn.Module) -> Iterator[None]:
    """Within it passes move copies of running statistics and power iterations; afterwards the originals are back.

    They are exchanged and not written to, since a graph that is still to be sent backward may hold them.
    """
    owners = [
        (module, name, buffer)
        for module in network.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    for module, name, buffer in owners:
        module._buffers[name] = buffer.detach().clone()
    try:
        yield
    finally:
        for module, name, buffer in owners:
            module._buffers[name] = buffer


def _slopes(judge: Callable[[Tensor], DiscriminatorOutput], images: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths of the critic's gradient at images (B, C, H, W), with shape (B,), and its logits."""
    with torch.enable_grad():
        x = images.detach().clone().requires_grad_()
        logits = judge(x).logits
        (gradient,) = torch.autograd.grad(logits.sum(), x)
    return torch.linalg.vector_norm(gradient.flatten(1), dim=1), logits.detach()


def spread(images: Tensor) -> Tensor:
    """Mean Euclidean distance of two different images of (B, C, H, W), a scalar; 0 for a single image.

    Example:
        >>> spread(torch.tensor([[[[0.0]]], [[[2.0]]]]))
        tensor(2.)
    """
    if len(images) < 2:
        return images.new_zeros(())
    return torch.pdist(images[:MOST].detach().flatten(1)).mean()


def between_sets(first: Tensor, second: Tensor) -> Tensor:
    """Mean Euclidean distance of an image of one set (B, C, H, W) and one of another, a scalar.

    Example:
        >>> between_sets(torch.zeros(2, 1, 1, 1), torch.tensor([[[[1.0]]], [[[3.0]]]]))
        tensor(2.)
    """
    one, other = (images[:MOST].detach().flatten(1) for images in (first, second))
    return torch.cdist(one, other).mean()
