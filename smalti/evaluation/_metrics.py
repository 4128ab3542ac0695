"""The metrics of an evaluation, set as its protocol says."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smalti.evaluation.protocol import SAME_CROPS, Protocol
from smalti.extractors import Extractor
from smalti.extractors.inception_v3 import InceptionV3
from smalti.extractors.lpips import LPIPS
from smalti.metrics import Metric
from smalti.metrics._jackknife import GROUPS
from smalti.registry import UserError, arguments_of, names, resolve, short_name, suggest

USUAL_LPIPS = "vgg"  # what the metric takes by itself
USUAL = ("psnr", "ssim", "bits_per_pixel")
# Metrics of features: at the layer that the protocol names, or at one of their own.
OF_LAYER = ("fid", "kid", "fid_infinity", "precision_recall", "density_coverage")
OF_NETWORK = ("sfid", "inception_score")
# Of single images there is an interval anyway; these have one by leaving out groups of images.
WITH_INTERVAL = ("fid", "sfid", "fd", "kid", "precision_recall", "density_coverage", "inception_score")
OF_TOKENS = ("codebook_usage", "perplexity", "bits_per_image")


def metrics_of(
    protocol: Protocol, wanted: Sequence[str], has_tokens: bool, weights: str = "pretrained"
) -> dict[str, Metric]:
    """Name -> metric.

    Args:
        protocol: says how.
        wanted: names; none: the usual ones, those of tokens only where there are any.
        has_tokens: whether the tokenizer has tokens.
        weights: of the network of the metrics of features: ``pretrained``, ``random`` or a path.

    Raises:
        UserError: for an unknown name, one that is there twice, or a metric that a protocol cannot set.
    """
    chosen = list(wanted) or [*USUAL, *(OF_TOKENS if has_tokens else ())]
    found: dict[str, Metric] = {}
    networks: dict[int | None, Extractor] = {}
    for name in chosen:
        if name in found:
            raise UserError(f"metrics: {name} is there twice")
        if "." not in name and name not in names(Metric):
            raise UserError(f"metrics: no metric {name!r}{suggest(name, names(Metric))}")
        made, options = resolve(name, Metric), dict(_options(protocol).get(name, {}))
        if name in (*OF_LAYER, *OF_NETWORK):
            layer = protocol.features.layer if name in OF_LAYER else None
            if layer not in networks:
                networks[layer] = _network(protocol, layer, weights)
            options["extractor"] = networks[layer]
        if name == "lpips" and protocol.lpips != USUAL_LPIPS:
            options["extractor"] = LPIPS(network=protocol.lpips)
        if name in WITH_INTERVAL:
            options["groups"] = GROUPS
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
        if kind in (*OF_LAYER, *OF_NETWORK) and "extractor" not in given:
            layer = protocol.features.layer if kind in OF_LAYER else None
            options = {**options, "extractor": _network(protocol, layer, "pretrained")}
        if kind == "lpips" and "extractor" not in given and protocol.lpips != USUAL_LPIPS:
            options = {**options, "extractor": LPIPS(network=protocol.lpips)}
        found[name] = type(metric)(**{**given, **options}) if options else metric
    return found


def _network(protocol: Protocol, layer: int | None, weights: str) -> Extractor:
    """The network of the features, one for all metrics of a layer; None: of metrics with a layer of their own."""
    rule = protocol.features
    if rule.network != "inception_v3":
        found: Extractor = resolve(rule.network, Extractor)()
        return found
    layers = None if layer in (None, 2048) else (str(layer),)
    try:
        return InceptionV3(weights=weights, resize=rule.resize, layers=layers)  # type: ignore[arg-type]
    except ValueError as error:
        raise UserError(f"--inception: {error}") from error


def moments_file(reference: str) -> str:
    """The file of a reference ``FILE#SHA256``, its hash checked.

    Raises:
        UserError: if it is missing or another file.
    """
    path, _, digits = reference.partition("#")
    if not digits:
        raise UserError(f"reference={reference!r}: expected {SAME_CROPS} or FILE#SHA256")
    try:
        found = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"reference: {path}: {error.strerror}") from error
    if not found.startswith(digits.lower()):
        raise UserError(f"reference: {path} has the SHA-256 {found[:16]}..., expected {digits}")
    return path


def contradiction(protocol: Protocol, kind: str, given: Mapping[str, Any]) -> str | None:
    """What of a metric's options is another than the protocol says, None if nothing is."""
    options = _options(protocol).get(kind, {})
    odd = next((option for option, value in options.items() if given.get(option, value) != value), None)
    return None if odd is None else f"{odd}={given[odd]!r}: protocol {protocol.name} says {options[odd]!r}"


def _options(protocol: Protocol) -> Mapping[str, Mapping[str, Any]]:
    psnr, ssim = protocol.psnr, protocol.ssim
    reference = None if protocol.reference == SAME_CROPS else moments_file(protocol.reference)
    return {
        "fid": {"reference": reference},
        "sfid": {"reference": reference},
        "inception_score": {"splits": protocol.splits},
        "precision_recall": {"k": protocol.neighbours},
        "psnr": {"mean": psnr.mean, "data_range": psnr.data_range, "quantize": psnr.quantize or "none"},
        "ssim": {
            "border": ssim.border,
            "window": ssim.window,
            "data_range": ssim.data_range,
            "quantize": ssim.quantize or "none",
        },
    }
