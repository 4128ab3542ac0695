"""What is measured at a log step alone: images, latents, codes, the size of an update. It stays on the device."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from smalti.bottlenecks import Bottleneck
from smalti.outputs import BottleneckOutput, CodebookRecord, DiagonalGaussian

Numbers = dict[str, Tensor | float]

ACTIVE = 0.01  # nats of a latent number above which its channel is in use (arXiv:1509.00519)
ONE_COLOUR = 2 * 2 / 255  # two grey levels of images in [-1, 1]
CHUNK = 64  # tensors per fused call


@torch.no_grad()
def image_signals(image: Any) -> Numbers:
    """``image/...`` of a batch (B, C, H, W), as a loader gives it: uint8, or floats that are taken as they are."""
    if not isinstance(image, Tensor) or image.ndim != 4 or not image.numel():
        return {}
    pixels = image.to(torch.float32)
    pixels = pixels / 127.5 - 1.0 if image.dtype == torch.uint8 else pixels
    flat = pixels.flatten(1)
    range_of = flat.amax(dim=1) - flat.amin(dim=1)
    found: Numbers = {
        "image/min": flat.amin(),
        "image/max": flat.amax(),
        "image/deviation": flat.std(),
        "image/constant": (range_of <= ONE_COLOUR).float().mean(),
    }
    if len(flat) > 1:
        found["image/difference"] = flat.std(dim=0).mean()
    return found


@torch.no_grad()
def latent_signals(output: Any) -> Numbers:
    """``codebook/<name>/...`` and ``posterior/...`` of a model's output, if it has a bottleneck."""
    bottleneck = getattr(output, "bottleneck", None)
    if not isinstance(bottleneck, BottleneckOutput):
        return {}
    found: Numbers = {}
    for name, record in bottleneck.codebooks.items():
        found |= {f"codebook/{name}/{key}": value for key, value in _code_signals(record).items()}
    if bottleneck.posterior is not None:
        found |= {f"posterior/{key}": value for key, value in _posterior_signals(bottleneck.posterior).items()}
    return found


def _code_signals(record: CodebookRecord) -> Numbers:
    """Of a table alone: codes that are not listed have the scale of their latents by construction."""
    if record.codebook is None or record.z.shape != record.quantized.shape:
        return {}
    z, codes = record.z.detach().float(), record.codebook.detach().float()
    size = z.square().mean()
    away = (z - record.quantized.detach().float()).square().mean()
    return {
        "norm_ratio": (size / codes.square().mean().clamp_min(1e-30)).sqrt(),
        "error": away / size.clamp_min(1e-30),
    }


def _posterior_signals(posterior: DiagonalGaussian) -> Numbers:
    mean, logvar = posterior.mean.detach().float(), posterior.logvar.detach().float()
    kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar)
    channels = kl.mean(dim=[dim for dim in range(kl.ndim) if dim != 1])
    return {"kl": kl.mean(), "active": (channels > ACTIVE).float().mean()}


def reach(model: nn.Module, output: Any, updates: int, passes: int) -> dict[str, float]:
    """``codebook/<plane>/reachable`` and ``/reachable_share``: the codes that the tokens counted so far could fill.

    Args:
        model: whose bottlenecks count.
        output: of a micro-batch, with indices (B, G, h, w).
        updates: so far.
        passes: micro-batches of all ranks in an update.
    """
    indices = getattr(getattr(output, "bottleneck", None), "indices", None)
    if indices is None:
        return {}
    tokens = indices.numel() // max(indices.shape[1], 1) * passes * min(updates, 50)  # half a window is always counted
    found: dict[str, float] = {}
    for part in model.modules():
        sizes = getattr(part, "codebook_sizes", None) if isinstance(part, Bottleneck) else None
        if isinstance(sizes, Mapping):
            for plane, size in sizes.items():
                within = min(size, tokens)
                found |= {f"codebook/{plane}/reachable": within, f"codebook/{plane}/reachable_share": within / size}
    return found


def revivals(model: nn.Module) -> dict[str, float]:
    """``codebook/<name>/revival_patience`` of the codebooks that revive their dead codes."""
    found: dict[str, float] = {}
    for part in model.modules():
        books = getattr(part, "quantizers", None) if isinstance(part, Bottleneck) else None
        for name, quantizer in books() if callable(books) else ():
            patience = getattr(getattr(quantizer, "revival", None), "patience", None)
            if isinstance(patience, int):
                found[f"codebook/{name}/revival_patience"] = float(patience)
    return found


@torch.no_grad()
def update_ratio(phase: str, optimizer: torch.optim.Optimizer, updates: int) -> Numbers:
    """``<phase>/update_ratio``: how much an update changes weights, as a share of their size, |update| / |weights|.

    Worked out from the moments that the optimizer has, after its step; empty where it has none.

    Args:
        phase: whose optimizer it is.
        optimizer: Adam, AdamW or RMSprop.
        updates: that it has done.
    """
    moved: list[Tensor] = []
    sizes: list[Tensor] = []
    for group in optimizer.param_groups:
        owned = [p for p in group["params"] if p in optimizer.state and p.grad is not None]
        for start in range(0, len(owned), CHUNK):
            chunk = owned[start : start + CHUNK]
            steps = _steps(optimizer, group, chunk, max(updates, 1))
            if steps is None:
                return {}
            moved += torch._foreach_norm(steps)
            sizes += torch._foreach_norm([p.detach() for p in chunk])
    if not moved:
        return {}
    return {f"{phase}/update_ratio": _length(moved) / _length(sizes).clamp_min(1e-30)}


def _length(norms: Sequence[Tensor]) -> Tensor:
    """The norm of what has these norms, a scalar."""
    found: Tensor = torch.linalg.vector_norm(torch.stack(list(norms)).double())
    return found


def _steps(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], parameters: list[Any], updates: int
) -> list[Tensor] | None:
    states = [optimizer.state[p] for p in parameters]
    if all("exp_avg" in state and "exp_avg_sq" in state for state in states):
        first, second = group["betas"]
        tops = [state["exp_avg"] for state in states]
        squares = [state["exp_avg_sq"] for state in states]
        warm, warm_square = 1.0 - first**updates, 1.0 - second**updates
    elif all("square_avg" in state for state in states):
        tops, squares, warm, warm_square = [p.grad for p in parameters], [s["square_avg"] for s in states], 1.0, 1.0
    else:
        return None
    below = torch._foreach_sqrt(squares)
    torch._foreach_div_(below, math.sqrt(max(warm_square, 1e-30)))
    torch._foreach_add_(below, group["eps"])
    found = torch._foreach_div(tops, below)
    torch._foreach_mul_(found, float(group["lr"]) / max(warm, 1e-30))
    return list(found)


@torch.no_grad()
def distance(shadow: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> Numbers:
    """``ema/distance``: |shadow - parameters| / |parameters|; empty if there are none."""
    names = list(shadow)
    away: list[Tensor] = []
    for start in range(0, len(names), CHUNK):
        chunk = names[start : start + CHUNK]
        moved = torch._foreach_sub([shadow[name] for name in chunk], [parameters[name].detach() for name in chunk])
        away += torch._foreach_norm(moved)
    if not away:
        return {}
    sizes = torch._foreach_norm([parameters[name].detach() for name in names])
    return {"ema/distance": _length(away) / _length(sizes).clamp_min(1e-30)}


def slopes_under_batch_norm(phases: Mapping[str, Any]) -> dict[str, float]:
    """``<phase>/batch_norm_under_slope``: its batch normalisations, where a term asks for slopes of single samples."""
    found: dict[str, float] = {}
    for name, phase in phases.items():
        asks = any("discriminator" in term.reads for term in phase.terms)
        layers = [part for part in phase.network.modules() if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d)]
        if name != "generator" and asks and layers:
            found[f"{name}/batch_norm_under_slope"] = float(len(layers))
    return found
