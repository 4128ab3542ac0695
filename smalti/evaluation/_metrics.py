"""The metrics of an evaluation, set as its protocol says."""

from collections.abc import Mapping, Sequence
from typing import Any

from smalti.evaluation.protocol import Protocol
from smalti.metrics import Metric
from smalti.registry import UserError, names, resolve, suggest

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


def _options(protocol: Protocol) -> Mapping[str, Mapping[str, Any]]:
    psnr, ssim = protocol.psnr, protocol.ssim
    return {
        "psnr": {"mean": psnr.mean, "data_range": psnr.data_range},
        "ssim": {"border": ssim.border, "window": ssim.window, "data_range": ssim.data_range},
    }
