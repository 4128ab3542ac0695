"""Which way the work of a run takes here: kernels, memory format, precision, compiled parts, graphs; a line of its log.

A run that takes a slow way for want of a fast one looks like any other, only slower: so every run says it at its start.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from smalti.engine.settings import EngineSettings
from smalti.nn import group_norm, soft_assignment
from smalti.quantizers import Quantizer

PATHS = "paths"  # its name in the first record of metrics.jsonl


def paths_of(
    model: nn.Module,
    settings: EngineSettings,
    device: torch.device,
    memory_format: torch.memory_format,
    graphs: Mapping[str, str | None],
) -> dict[str, str]:
    """What is done -> how.

    Args:
        model: whose quantizers and normalisations are looked at.
        settings: of the run.
        device: of the run.
        memory_format: of images.
        graphs: phase -> why its updates are not recorded, or None.
    """
    last = memory_format is torch.channels_last
    found = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": settings.precision + _emulated(settings.precision, device),
        "frozen networks": "bf16" if settings.frozen == "auto" and settings.precision == "bf16" else "float32 weights",
        "memory format": "channels_last" if last else "contiguous",
        "compiled": ", ".join(settings.compile) or "nothing",
    }
    dtype = torch.float64 if settings.precision == "fp64" else torch.float32
    quantizers = [part for part in model.modules() if isinstance(part, Quantizer) and "entropy" in part.terms]
    for d in sorted({part.channels for part in quantizers}):
        found[f"soft assignment, {d} channels"] = soft_assignment.path(device, dtype, d + 1)
    if any(isinstance(part, nn.GroupNorm) for part in model.modules()):
        found["group norm"] = group_norm.path(device, dtype, channels_last=last)
    if settings.graphs == "off":
        found["graphs"] = "off"
    else:
        found |= {f"graphs of the {name}": "auto" if why is None else f"off ({why})" for name, why in graphs.items()}
    return found


def _emulated(precision: str, device: torch.device) -> str:
    """A remark where numbers of 16 bits are computed by way of others, far slower than those of 32."""
    if precision != "bf16" or device.type != "cpu" or has_bf16():
        return ""
    return " (emulated: this CPU has no bf16, and fp32 is many times faster)"


def has_bf16() -> bool:
    """Whether convolutions of bf16 are fast on this CPU; true where torch cannot tell."""
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return True


def line_of(paths: Mapping[str, str]) -> str:
    """One line for the log.

    >>> line_of({"device": "cpu", "graphs": "off"})
    'device: cpu; graphs: off'
    """
    return "; ".join(f"{name}: {how}" for name, how in paths.items())


def detours(paths: Mapping[str, str], device: torch.device) -> list[str]:
    """Warnings of ways that are slow for want of a fast one, with the reason; none on a CPU, where they are the rule.

    >>> detours({"group norm": "torch (triton is not installed)"}, torch.device("cuda"))
    ['group norm: torch (triton is not installed), where a GPU has something faster']
    """
    if device.type == "cpu":
        return []
    slow = [f"{name}: {how}" for name, how in paths.items() if how.endswith(")") and " (" in how]
    return [f"{one}, where a GPU has something faster" for one in slow if not one.startswith("device")]


def told_before(metrics: Path) -> str | None:
    """The line that a run's ``metrics.jsonl`` has from its start; None if there is none."""
    if not metrics.is_file():
        return None
    with metrics.open(encoding="utf-8", errors="replace") as lines:
        for text in lines:
            if f'"{PATHS}"' in text:
                try:
                    return str(json.loads(text)[PATHS])
                except (ValueError, KeyError, TypeError):
                    return None
    return None
