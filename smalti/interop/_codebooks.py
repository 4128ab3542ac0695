"""The codebooks of a configuration, as formats with one or several of them ask for them."""

from collections.abc import Mapping
from typing import Any

USUAL = "codebook"  # name of the only codebook of an imported model


def quantizers(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Name -> options of the quantizer, in order; empty for a continuous bottleneck."""
    return {name: branch["quantizer"] for name, branch in config["bottleneck"].get("codebooks", {}).items()}


def only_quantizer(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Options of the quantizer if there is exactly one."""
    found = list(quantizers(config).values())
    return found[0] if len(found) == 1 else None


def reasons_against(config: Mapping[str, Any], types: tuple[str, ...] = ("nearest",)) -> list[str]:
    """Why a format with one codebook of rows, of a quantizer of these types, cannot express the bottleneck."""
    found = quantizers(config)
    if len(found) > 1:
        return [f"the codebooks {', '.join(found)}: expected one"]
    odd = [options["type"] for options in found.values() if options["type"] not in types]
    expected = " or ".join(map(repr, types))
    return [f"codes of a quantizer of the type {odd[0]!r}: expected {expected}"] if odd else []


def are_unit(config: Mapping[str, Any]) -> bool:
    """Whether all codes are compared as unit vectors."""
    found = quantizers(config).values()
    return bool(found) and all(options.get("normalize") for options in found)


def under_usual_name(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same configuration with its only codebook, if it has one, under the name of imported ones."""
    bottleneck = config["bottleneck"]
    if len(bottleneck.get("codebooks", {})) != 1:
        return dict(config)
    [branch] = bottleneck["codebooks"].values()
    return {**config, "bottleneck": {**bottleneck, "codebooks": {USUAL: branch}}}


def heads_of(config: Mapping[str, Any]) -> int | None:
    """Attention heads of its transformers, which no format stores; None if it has none."""
    codebooks = config["bottleneck"].get("codebooks", {}).values()
    adapters = [options["adapter"]["heads"] for options in codebooks if options.get("adapter")]
    return int(adapters[0]) if adapters else None
