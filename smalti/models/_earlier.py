"""Models that earlier versions saved: their configuration and the names of their tensors as they are written today.

Up to 0.1 a single codebook was the bottleneck ``vector_quantizer`` and several were ``factorized``, each with the
options of its codebooks; now both are ``tokens``, a mapping of quantizers.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

_OF_QUANTIZERS = ("normalize", "estimator", "codebook_gradient", "init", "ema", "revival", "usage_window")


def upgraded(config: Any, place: str = "") -> tuple[Any, dict[str, str]]:
    """A configuration in today's words, and the beginnings of names of tensors that changed: former -> today's.

    >>> upgraded({"type": "vector_quantizer", "in_channels": 4, "codebook_size": 8, "code_channels": 2}, "x.")[1]
    {'x.projection.': 'x.branches.codebook.projection.', 'x.codebook.': 'x.branches.codebook.quantizer.'}
    """
    if not isinstance(config, Mapping):
        return config, {}
    if config.get("type") == "vector_quantizer":
        return _of_one(config, place)
    if config.get("type") == "factorized" and isinstance(config.get("codebooks"), Mapping):
        return _of_several(config, place)
    found: dict[str, Any] = {}
    names: dict[str, str] = {}
    for key, value in config.items():
        found[key], more = upgraded(value, f"{place}{key}.")
        names |= more
    return found, names


def renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Tensors under today's names, by the beginnings that ``upgraded`` found."""
    return {_renamed(key, names): value for key, value in state.items()}


def _renamed(key: str, names: Mapping[str, str]) -> str:
    former = next((former for former in names if key.startswith(former)), None)
    return key if former is None else names[former] + key.removeprefix(former)


def _of_one(config: Mapping[str, Any], place: str) -> tuple[dict[str, Any], dict[str, str]]:
    name = config.get("name", "codebook")
    branch = _branch(config)
    branches = f"{place}branches.{name}."
    found = {"type": "tokens", **_rest(config), "codebooks": {name: branch}}
    names = {f"{place}projection.": f"{branches}projection.", f"{place}codebook.": f"{branches}quantizer."}
    return found, names


def _of_several(config: Mapping[str, Any], place: str) -> tuple[dict[str, Any], dict[str, str]]:
    codebooks = config["codebooks"]
    found = {name: _branch(options) if isinstance(options, Mapping) else options for name, options in codebooks.items()}
    names = {f"{place}branches.{name}.codebook.": f"{place}branches.{name}.quantizer." for name in codebooks}
    return {"type": "tokens", **_rest(config), "codebooks": found}, names


def _branch(options: Mapping[str, Any]) -> dict[str, Any]:
    """What a codebook was given -> its quantizer and the way to it."""
    former = {"codebook_size": "size", "code_channels": "channels", **{name: name for name in _OF_QUANTIZERS}}
    quantizer = {today: options[name] for name, today in former.items() if name in options}
    way = {name: options[name] for name in ("adapter", "projection") if name in options}
    return {"quantizer": {"type": "nearest", **quantizer}, **way}


def _rest(config: Mapping[str, Any]) -> dict[str, Any]:
    """What is neither of a codebook nor of the way to it: a name that is wrong stays, to be told."""
    known = {"type", "name", "codebooks", "codebook_size", "code_channels", "adapter", "projection", *_OF_QUANTIZERS}
    return {name: value for name, value in config.items() if name not in known}
