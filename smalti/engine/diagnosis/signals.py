"""What is measured at a log step alone: images, latents, codes, the size of an update. It stays on the device."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from smalti.bottlenecks import Bottleneck
from smalti.outputs import BottleneckOutput, CodebookRecord, DiagonalGaussian

Numbers = dict[str, Tensor | float]

ACTIVE = 0.01  # nats of a latent number above which its channel is in use (arXiv:1509.00519)
ONE_COLOUR = 2 * 2 / 255  # two grey levels of images in [-1, 1]
FLAT = 2**18  # numbers up to which tensors are joined: small ones cost by the call, large ones by the number


@torch.no_grad()
def image_signals(image: Any) -> Numbers:
    """``image/...`` of a batch (B, C, H, W), as a loader gives it: uint8, or floats that are taken as they are."""
    if not isinstance(image, Tensor) or image.ndim != 4 or not image.numel():
        return {}
    flat = image.flatten(1)
    low, high = flat.aminmax(dim=1)
    scale, shift = (127.5, 1.0) if image.dtype == torch.uint8 else (1.0, 0.0)
    pixels = flat.float()  # as they are: the few numbers below are brought to range, not all pixels
    found: Numbers = {
        "image/min": low.amin().float() / scale - shift,
        "image/max": high.amax().float() / scale - shift,
        "image/deviation": pixels.std() / scale,
        "image/constant": ((high.float() - low.float()) / scale <= ONE_COLOUR).float().mean(),
    }
    if len(flat) > 1:
        found["image/difference"] = pixels.std(dim=0).mean() / scale
    if image.shape[1] == 3:
        colours = pixels.reshape(image.shape)
        found["image/colour"] = colours.diff(dim=1).abs().mean() / scale
    return found


@torch.no_grad()
def token_signals(indices: Any, codebooks: Mapping[str, int]) -> Numbers:
    """``tokens/<codebook>/...`` of a batch of tokens (B, G, h, w), which a model of tokens predicts.

    ``highest``: the largest index; ``different``: how many there are; ``distinct``: that, as a share of the codes that
    so many tokens could fill; ``agree``: the share of places at which an image and the next one have the same token.
    """
    if not isinstance(indices, Tensor) or indices.ndim != 4 or indices.shape[1] != len(codebooks):
        return {}
    found: Numbers = {}
    for plane, (name, size) in zip(indices.unbind(1), codebooks.items(), strict=True):
        counts = torch.bincount(plane.flatten(), minlength=size)
        at = f"tokens/{name}/"
        found |= {f"{at}codes": float(size), f"{at}highest": plane.amax().float()}
        different = (counts > 0).sum().float()
        found |= {f"{at}different": different, f"{at}distinct": different / min(size, plane.numel())}
        if len(plane) > 1:
            found[f"{at}agree"] = (plane == plane.roll(1, 0)).float().mean()
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
    found: Numbers = {"error": away / size.clamp_min(1e-30)}
    if record.by_distance:
        found["norm_ratio"] = (size / codes.square().mean().clamp_min(1e-30)).sqrt()
    return found


def _posterior_signals(posterior: DiagonalGaussian) -> Numbers:
    mean, logvar = posterior.mean.detach().float(), posterior.logvar.detach().float()
    kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar)
    channels = kl.mean(dim=[dim for dim in range(kl.ndim) if dim != 1])
    return {"kl": kl.mean(), "active": (channels > ACTIVE).float().mean()}


def planes_of(model: nn.Module) -> dict[str, int]:
    """Name -> codes, of each codebook or plane of the model's bottlenecks."""
    found: dict[str, int] = {}
    for part in model.modules():
        sizes = getattr(part, "codebook_sizes", None) if isinstance(part, Bottleneck) else None
        found |= dict(sizes) if isinstance(sizes, Mapping) else {}
    return found


def reach(planes: Mapping[str, int], output: Any, updates: int, passes: int) -> dict[str, float]:
    """``codebook/<plane>/reachable`` and ``/reachable_share``: the codes that the tokens counted so far could fill.

    Args:
        planes: name -> codes.
        output: of a micro-batch, with indices (B, G, h, w).
        updates: so far.
        passes: micro-batches of all ranks in an update.
    """
    indices = getattr(getattr(output, "bottleneck", None), "indices", None)
    if indices is None:
        return {}
    tokens = indices.numel() // max(indices.shape[1], 1) * passes * min(updates, 50)  # half a window is always counted
    within = {plane: min(size, tokens) for plane, size in planes.items()}
    found = {f"codebook/{plane}/reachable": float(count) for plane, count in within.items()}
    return found | {f"codebook/{plane}/reachable_share": count / planes[plane] for plane, count in within.items()}


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
        for joined in _joined(owned):
            update = _update(optimizer, group, joined, max(updates, 1))
            if update is None:
                return {}
            moved.append(torch.linalg.vector_norm(update))
            sizes.append(torch.linalg.vector_norm(_flat(joined)))
    return {f"{phase}/update_ratio": _length(moved) / _length(sizes).clamp_min(1e-30)} if moved else {}


def _joined(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in their order, small ones together with their neighbours."""
    together: list[Tensor] = []
    numbers = 0
    for tensor in tensors:
        if together and numbers + tensor.numel() > FLAT:
            yield together
            together, numbers = [], 0
        together.append(tensor)
        numbers += tensor.numel()
    if together:
        yield together


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    """All numbers of the tensors, with shape (n,); float32 at least."""
    flat = [tensor.detach().reshape(-1) for tensor in tensors]
    joined = torch.cat(flat) if len(flat) > 1 else flat[0]
    return joined if joined.dtype == torch.float64 else joined.float()


def _length(norms: Sequence[Tensor]) -> Tensor:
    """The norm of what has these norms, a scalar."""
    found: Tensor = torch.linalg.vector_norm(torch.stack(list(norms)).double())
    return found


def _update(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], parameters: list[Tensor], updates: int
) -> Tensor | None:
    """What the last step added to the parameters, but for its sign and weight decay, with shape (n,)."""
    states = [optimizer.state[p] for p in parameters]
    if all("exp_avg" in state and "exp_avg_sq" in state for state in states):
        first, second = group["betas"]
        tops, squares = [state["exp_avg"] for state in states], [state["exp_avg_sq"] for state in states]
        warm, warm_square = 1.0 - first**updates, 1.0 - second**updates
    elif all("square_avg" in state for state in states):
        tops, squares = [p.grad for p in parameters], [state["square_avg"] for state in states]
        warm, warm_square = 1.0, 1.0
    else:
        return None
    below = _flat(squares).div(max(warm_square, 1e-30)).sqrt_().add_(group["eps"])
    return _flat(tops).div(below).mul_(float(group["lr"]) / max(warm, 1e-30))


@torch.no_grad()
def distance(shadow: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> Numbers:
    """``ema/distance``: |shadow - parameters| / |parameters|; empty if there are none."""
    owned = [parameters[name].detach() for name in shadow]
    away: list[Tensor] = []
    sizes: list[Tensor] = []
    averages = iter(shadow.values())
    for joined in _joined(owned):
        now = _flat(joined)
        away.append(torch.linalg.vector_norm(_flat(list(islice(averages, len(joined)))).sub(now)))
        sizes.append(torch.linalg.vector_norm(now))
    return {"ema/distance": _length(away) / _length(sizes).clamp_min(1e-30)} if away else {}


def batch_normalised(phases: Mapping[str, Any]) -> dict[str, float]:
    """``<phase>/batch_norm``: its batch normalisations, of each phase that has any."""
    found = {name: len(_batch_norms(phase)) for name, phase in phases.items()}
    return {f"{name}/batch_norm": float(count) for name, count in found.items() if count}


def _batch_norms(phase: Any) -> list[nn.Module]:
    return [part for part in phase.network.modules() if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d)]


def slopes_under_batch_norm(phases: Mapping[str, Any]) -> dict[str, float]:
    """``<phase>/batch_norm_under_slope``: its batch normalisations, where a term asks for slopes of single samples."""
    found: dict[str, float] = {}
    for name, phase in phases.items():
        asks = any("discriminator" in term.reads for term in phase.terms)
        layers = _batch_norms(phase)
        if name != "generator" and asks and layers:
            found[f"{name}/batch_norm_under_slope"] = float(len(layers))
    return found
