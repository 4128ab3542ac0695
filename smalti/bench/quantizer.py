"""``smalti bench quantizer``: nearest codes and entropy loss, forward and backward."""

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING

from smalti.bench.measure import Measured, Row, compare, interleave, memory_note, textbook

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from smalti.nn.soft_assignment import Kernel

Run = Callable[[], object]


def measure_quantizer(
    tokens: int, codes: int, channels: int, device: "torch.device", repeats: int, *, compiled: bool
) -> tuple[list[Row], list[str]]:
    """Rows ``quantizer`` and ``quantizer+entropy``, and notes."""
    import torch

    from smalti.nn._chunks import has_cpp_compiler

    torch.manual_seed(0)
    z, codebook, upstream = (torch.randn(n, channels, device=device) for n in (tokens, codes, tokens))
    notes: list[str] = []
    product = torch.empty(tokens, codes, device=device)
    variants: dict[str, Run] = {"product": lambda: torch.mm(z, codebook.T, out=product)}
    kernels: list[Kernel] = ["eager" if device.type == "cpu" else "auto"]
    if compiled and device.type == "cpu" and not has_cpp_compiler():
        notes.append("no C++ compiler found: no compiled row")
    elif compiled and device.type == "cpu":
        kernels.append("compiled")
    variants["quantizer"] = _ours(z, codebook, upstream, None)
    for kernel in kernels:
        variants[_name(kernel)] = _ours(z, codebook, upstream, kernel)
    others = _others(z, codebook, upstream, notes)
    found = interleave(variants | others, repeats, device)
    rows: list[Row] = []
    for kind in ("quantizer", "quantizer+entropy"):
        against = {name.partition(" ")[2]: found[name] for name in others if name.partition(" ")[0] == kind}
        for name in [name for name in variants if name.partition(" ")[0] == kind]:
            rows += compare(name, found[name], against)
    notes.append(memory_note(found, others))
    notes.append(_roof(found, tokens, codes, channels))
    return rows, notes


def _name(kernel: str) -> str:
    return "quantizer+entropy" if kernel in {"eager", "auto"} else f"quantizer+entropy {kernel}"


def _roof(found: dict[str, Measured], tokens: int, codes: int, channels: int) -> str:
    product = found["product"].seconds
    times = [
        f"{name} {found[name].seconds / product:.1f}"
        for name in ("quantizer", "quantizer+entropy", "quantizer textbook", "quantizer+entropy textbook")
        if name in found
    ]
    size = f"{tokens} x {codes} x {channels} float32"
    return f"one matrix product {size}: {product:.4f} s; as multiples of it: {', '.join(times)}"


def _ours(z: "Tensor", codebook: "Tensor", upstream: "Tensor", kernel: "Kernel | None") -> Run:
    from smalti.losses import Loss
    from smalti.losses.codebook import CodebookLoss
    from smalti.losses.commitment import CommitmentLoss
    from smalti.losses.entropy import Entropy
    from smalti.quantizers.nearest import Nearest

    tokens, channels = z.shape
    part = Nearest(size=len(codebook), channels=channels, normalize=True).to(z.device)
    part.weight.data.copy_(codebook)
    image, gradient = (value.T.reshape(1, channels, tokens, 1) for value in (z, upstream))
    losses: list[tuple[Loss, float]] = [(CodebookLoss(), 1.0), (CommitmentLoss(), 0.25)]
    if kernel is not None:
        losses.append((Entropy(kernel=kernel), 0.03))

    def run() -> None:
        leaf = image.detach().requires_grad_()
        record = part(leaf)
        total = (record.latent * gradient).sum()
        for loss, weight in losses:
            value = loss({"codebook": record})
            total = total + weight * getattr(value, "total", value)
        total.backward()
        part.zero_grad()

    return run


def _others(z: "Tensor", codebook: "Tensor", upstream: "Tensor", notes: list[str]) -> dict[str, Run]:
    found: dict[str, Run] = {}
    plain = textbook("textbook_quantizer")
    for entropy, kind in ((False, "quantizer"), (True, "quantizer+entropy")):
        for name, step in (("textbook", plain.step), ("cdist", plain.cdist_step)):
            found[f"{kind} {name}"] = _leaves(step, z, codebook, upstream, entropy)
    if importlib.util.find_spec("vector_quantize_pytorch") is None:
        notes.append("vector-quantize-pytorch is not installed (pip install 'smalti[bench]'): no rows against it")
    else:
        found["quantizer vector-quantize-pytorch"] = _vector_quantize(z, codebook, upstream, 0.0)
        found["quantizer+entropy vector-quantize-pytorch"] = _vector_quantize(z, codebook, upstream, 0.03)
    return found


def _leaves(step: Callable[..., None], z: "Tensor", codebook: "Tensor", upstream: "Tensor", entropy: bool) -> Run:
    return lambda: step(z.detach().requires_grad_(), codebook.detach().requires_grad_(), upstream, entropy=entropy)


def _vector_quantize(z: "Tensor", codebook: "Tensor", upstream: "Tensor", diversity: float) -> Run:
    """Its codes are moving averages, and its loss is the entropy of the mean alone: less work than ours."""
    from vector_quantize_pytorch import VectorQuantize

    part = VectorQuantize(
        dim=z.shape[1],
        codebook_size=len(codebook),
        use_cosine_sim=True,
        codebook_diversity_loss_weight=diversity,
        codebook_diversity_temperature=100.0,
    ).to(z.device)

    def run() -> None:
        leaf = z.detach()[None].requires_grad_()
        output, _, loss = part(leaf)
        ((output[0] * upstream).sum() + loss.sum()).backward()

    return run
