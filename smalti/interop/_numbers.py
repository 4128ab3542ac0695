"""Tensors as numbers of 32 bits or more: wider ones exactly, 8-bit ones times their scale; others are refused by name.

A file in float8 was rounded when it was written, which is told. Where a layer has a scale beside its weight
(``scale_weight`` of ComfyUI, ``weight_scale`` of compressed-tensors), the weight is the product.
"""

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smalti.config import read_json
from smalti.registry import UserError, shown

FLOAT8 = frozenset({torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz})
HALVES = frozenset({torch.float16, torch.bfloat16})
FLOATS = frozenset({torch.float32, torch.float64})
MARKER = "scaled_fp8"
LAYER_MARKER = "comfy_quant"
_LISTED = 8


@dataclass
class Numbers:
    """A state dict in floating point.

    Args:
        state: key -> tensor; whole numbers stay as they are.
        dropped: reason -> keys that were used up, or say nothing about weights.
        notes: what the user should know of their precision.
    """

    state: dict[str, Tensor]
    dropped: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def is_marked(keys: Collection[str], prefix: str) -> bool:
    """Whether a marker outside the network says that its float8 weights are scaled: it speaks of all below its place.

    Args:
        keys: of the whole file.
        prefix: of the network in it.
    """
    return any(prefix.startswith(key.removesuffix(MARKER)) for key in keys if _leaf(key) == MARKER)


def widened(state: Mapping[str, Tensor], where: Path, *, marked: bool = False) -> Numbers:
    """Half precision and float8 in float32, which holds both exactly: a KL autoencoder overflows in float16.

    Args:
        state: of a file.
        where: the file, for messages.
        marked: whether the file says elsewhere that its float8 weights are scaled.

    Raises:
        UserError: if float8 weights have a scale that is not one number per tensor or per row, or none where the
            file says they have one.
    """
    made = Numbers({})
    narrow = [key for key, value in state.items() if value.dtype in FLOAT8 and _leaf(key) != MARKER]
    markers = [key for key in state if _leaf(key) == MARKER]
    scaled = _scaled(state, narrow, made, where, needed=marked or bool(markers))
    gone = {key for keys in made.dropped.values() for key in keys} | set(markers)
    for key, value in state.items():
        if key not in gone:
            made.state[key] = scaled.get(key, value.float() if value.dtype in FLOAT8 | HALVES else value)
    _note(made, "marker of a file in float8", markers)
    if narrow:
        kinds = ", ".join(sorted({_name(state[key]) for key in narrow}))
        times = f", {len(scaled)} of them times their scale" if scaled else ""
        made.notes.append(
            f"{len(narrow)} tensors of the file had been rounded to 8 bits ({kinds}) and are read into float32{times}"
        )
    return made


def _scaled(
    state: Mapping[str, Tensor], narrow: Collection[str], made: Numbers, where: Path, *, needed: bool
) -> dict[str, Tensor]:
    """Float8 tensors times their scales; what stands beside them is put among the dropped."""
    scaled = {}
    beside = _children(state)
    for key in narrow:
        parent, leaf = key.rpartition(".")[0], _leaf(key)
        siblings = beside[parent]
        own = [name for name in siblings if _leaf(name) in {f"scale_{leaf}", f"{leaf}_scale"}]
        passive = [name for name in siblings if _leaf(name) in {"scale_input", "input_scale", LAYER_MARKER}]
        odd = [name for name in siblings if _speaks_of(_leaf(name), leaf) and name not in own]
        if odd or len(own) > 1:
            raise UserError(
                f"{where}: {key} is {_name(state[key])} with {', '.join(odd or own)}: read is one scale, "
                f"scale_{leaf} or {leaf}_scale, of one number per tensor or per row"
            )
        if needed and not own and leaf == "weight":
            raise UserError(f"{where}: {key} is {_name(state[key])} in a file of scaled weights, and has no scale")
        if own:
            scaled[key] = state[key].float() * _factor(state[key], key, state[own[0]], own[0], where)
            _note(made, "scale of float8 weights, multiplied into them", own)
        _check_layer_marker(state, key, f"{parent}.{LAYER_MARKER}", where)
        _note(made, "of arithmetic in float8, which says nothing about weights", passive)
    return scaled


def _check_layer_marker(state: Mapping[str, Tensor], key: str, marker: str, where: Path) -> None:
    """Refuses a layer whose marker, bytes of ``{"format": "float8_e4m3fn"}``, says another type than its weight has."""
    if marker not in state or _leaf(key) != "weight":
        return
    found: Any = None
    with suppress(UserError, UnicodeDecodeError):
        found = read_json(bytes(state[marker].to(torch.uint8).flatten().tolist()).decode(), marker)
    said = found.get("format") if isinstance(found, Mapping) else found
    if said != _name(state[key]):
        raise UserError(f"{where}: {marker} says {shown(said)}, and {key} is {_name(state[key])}")


def _children(state: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Layer -> keys of what it holds."""
    found: dict[str, list[str]] = {}
    for key in state:
        found.setdefault(key.rpartition(".")[0], []).append(key)
    return found


def _speaks_of(leaf: str, weight: str) -> bool:
    """Whether a name beside a weight is of how it was quantized: ``weight_scale_inv``, ``weight_zero_point``."""
    words = ("scale", "zero_point", "absmax", "quant")
    return leaf != weight and weight in leaf and any(word in leaf for word in words)


def _factor(value: Tensor, key: str, scale: Tensor, name: str, where: Path) -> Tensor:
    """A scale in the shape that multiplies the weight."""
    rows = value.shape[0] if value.ndim else 1
    shape = tuple(scale.shape)
    per_row = value.ndim > 0 and shape in {(rows,), *((rows, *[1] * more) for more in range(1, value.ndim))}
    if not scale.is_floating_point() or not (scale.numel() == 1 or per_row):
        raise UserError(
            f"{where}: {name}, the scale of {key}, is {_name(scale)} of shape {shape}: expected one number, or "
            f"{rows}, one per row"
        )
    factor = scale.float()
    if not bool((torch.isfinite(factor) & (factor > 0.0)).all()):
        raise UserError(f"{where}: {name}, the scale of {key}, is not finite or not positive")
    return factor.reshape(-1, *[1] * (value.ndim - 1)) if value.ndim else factor.reshape(())


def refuse_odd(state: Mapping[str, Tensor], keys: Collection[str], where: Path) -> None:
    """Refuses weights that are no plain floating-point numbers.

    Args:
        state: widened.
        keys: of weights.
        where: the file, for messages.

    Raises:
        UserError: listing them with what they are.
    """
    odd = [f"{key} is {why}" for key in keys if (why := _why_odd(state[key]))]
    if odd:
        more = f" and {len(odd) - _LISTED} more" if len(odd) > _LISTED else ""
        raise UserError(
            f"{where}: {'; '.join(odd[:_LISTED])}{more}: weights are read in float64, float32, float16, bfloat16 and "
            "float8 (e4m3fn, e5m2, fnuz)"
        )


def _why_odd(value: Tensor) -> str | None:
    if value.is_meta:
        return "a tensor without numbers (device meta)"
    if value.is_nested or value.layout is not torch.strided:
        return (
            f"{_name(value)} in the layout {'nested' if value.is_nested else str(value.layout).removeprefix('torch.')}"
        )
    return None if value.dtype in FLOATS else _name(value)


def one_precision(state: dict[str, Tensor], keys: Collection[str]) -> tuple[str, ...]:
    """Makes float32 weights float64 where others are: a network computes in one precision, and this one loses nothing.

    Args:
        state: widened; changed in place.
        keys: of weights.

    Returns:
        What the user should know of it.
    """
    wide = [key for key in keys if state[key].dtype == torch.float64]
    if not wide or len(wide) == len(keys):
        return ()
    state.update({key: state[key].double() for key in keys})
    return (f"{len(wide)} tensors of the file are float64, as {wide[0]}: the others are widened to it, exactly",)


def _note(made: Numbers, reason: str, keys: Collection[str]) -> None:
    if keys:
        listed = made.dropped.setdefault(reason, [])
        listed += [key for key in keys if key not in listed]


def _leaf(key: str) -> str:
    return key.rpartition(".")[2]


def _name(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
