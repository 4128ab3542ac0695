"""The metrics of an evaluation, set as its protocol says."""

from collections.abc import Mapping, Sequence
from typing import Any

from smalti.evaluation.protocol import Protocol
from smalti.metrics import Metric
from smalti.registry import UserError, arguments_of, names, resolve, short_name, suggest

USUAL = ("psnr", "ssim", "bits_per_pixel")
OF_TOKENS = ("codebook_usage", "perplexity", "bits_per_image")


def metrics_of(protocol: Protocol, wanted: Sequence[str], has_tokens: bool) -> dict[str, Metric]:
    """Name -> metric.

    Args:
        protocol: says how.
        wanted: names; none: the usual ones, those of tokens only where there are any.
        has_tokens: whether the tokenizer has tokens.

    Raises:
        UserError: for an unknown name, one that is there twice, or a metric that a protocol cannot set.
    """
    chosen = list(wanted) or [*USUAL, *(OF_TOKENS if has_tokens else ())]
    found: dict[str, Metric] = {}
    for name in chosen:
        if name in found:
            raise UserError(f"metrics: {name} is there twice")
        if "." not in name and name not in names(Metric):
            raise UserError(f"metrics: no metric {name!r}{suggest(name, names(Metric))}")
        options = _options(protocol).get(name, {})
        made = resolve(name, Metric)
        try:
            found[name] = made(**options)
        except (TypeError, ValueError) as error:
            raise UserError(f"metrics: {name}: {error}") from error
    return found


def under_protocol(protocol: Protocol, metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """Metrics of a recipe, those that a protocol has a say in set as it says.

    Raises:
        ValueError: if a recipe sets an option that is the protocol's, to another value.
    """
    found: dict[str, Metric] = {}
    for name, metric in metrics.items():
        kind, given = short_name(type(metric)), arguments_of(metric)
        said = contradiction(protocol, kind, given)
        if said is not None:
            raise ValueError(f"metrics.{name}: {said}")
        options = _options(protocol).get(kind, {})
        found[name] = type(metric)(**{**given, **options}) if options else metric
    return found


def contradiction(protocol: Protocol, kind: str, given: Mapping[str, Any]) -> str | None:
    """What of a metric's options is another than the protocol says, None if nothing is."""
    options = _options(protocol).get(kind, {})
    odd = next((option for option, value in options.items() if given.get(option, value) != value), None)
    return None if odd is None else f"{odd}={given[odd]!r}: protocol {protocol.name} says {options[odd]!r}"


def _options(protocol: Protocol) -> Mapping[str, Mapping[str, Any]]:
    psnr, ssim = protocol.psnr, protocol.ssim
    return {
        "psnr": {"mean": psnr.mean, "data_range": psnr.data_range},
        "ssim": {"border": ssim.border, "window": ssim.window, "data_range": ssim.data_range},
    }
