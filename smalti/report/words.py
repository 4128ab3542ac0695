"""Measured numbers in words: the name a reader knows, a sensible number of digits, the unit."""

from collections.abc import Iterator, Mapping
from typing import Any

from smalti.report.run import is_number

LISTED = 12  # names of held-out images that are written out
_OBJECTIVE = "objective/"
_NAMES = {"images": "held-out images"}

# key -> (name, unit, digits after the point); a percentage is stored as a fraction
_QUANTITIES: Mapping[str, tuple[str, str, int]] = {
    "psnr": ("PSNR", "dB", 2),
    "psnr_uint8": ("PSNR of 8-bit images", "dB", 2),
    "ssim": ("SSIM", "", 4),
    "ssim_inflated": ("SSIM with another data range", "", 4),
    "lpips": ("LPIPS", "", 4),
    "bits_per_pixel": ("bits per pixel", "bit", 3),
    "codebook_usage": ("codebook usage", "%", 1),
    "usage": ("codebook usage", "%", 1),
    "perplexity": ("codebook perplexity", "codes", 1),
    "bits_per_image": ("bits per image", "bit", 0),
    "bits_per_image_effective": ("bits per image, entropy-coded", "bit", 0),
    "seconds": ("training time", "s", 1),
    "step": ("generator updates", "", 0),
    "training_images": ("images seen in training", "", 0),
}


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Pairs of a nested mapping, its keys joined by a slash.

    >>> dict(flatten({"psnr": 30.5, "usage": {"visual": 0.5}}))
    {'psnr': 30.5, 'usage/visual': 0.5}
    """
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def describe(key: str, value: Any) -> tuple[str, str]:
    """Name and text of a measurement.

    >>> describe("psnr", 31.2345), describe("codebook_usage", 0.512), describe("images", ["chelsea"])
    (('PSNR', '31.23 dB'), ('codebook usage', '51.2 %'), ('held-out images', 'chelsea'))
    """
    parts = key.split("/")
    known = next(((i, _QUANTITIES[part]) for i, part in enumerate(parts) if part in _QUANTITIES), None)
    if known is None or isinstance(value, (str, bool)) or not isinstance(value, (int, float)):
        return _NAMES.get(key, key.replace("_", " ")), _text(value)
    index, (name, unit, digits) = known
    rest = " ".join(parts[:index] + parts[index + 1 :])
    number = f"{100 * value if unit == '%' else value:,.{digits}f}"
    return f"{name} ({rest})" if rest else name, f"{number} {unit}".strip()


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, (list, tuple)):
        more = f", ... ({len(value)} in all)" if len(value) > LISTED else ""
        return ", ".join(_text(item) for item in value[:LISTED]) + more or "none"
    return "-" if value is None else str(value)


def rows(evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The table of an evaluation, in the order of the file; the terms of the objective are left to ``terms``.

    >>> rows({"perplexity/code": 12.0, "perplexity": 12.0})  # of the only codebook: said once
    [('codebook perplexity', '12.0 codes')]
    """
    shown = (pair for pair in flatten(evaluation) if not pair[0].startswith(_OBJECTIVE))
    return [describe(key, value) for key, value in shown if not is_number(evaluation.get(key.rpartition("/")[0]))]


def terms(evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The objective on the held-out images: log name and value."""
    pairs = ((key.removeprefix(_OBJECTIVE), value) for key, value in flatten(evaluation) if key.startswith(_OBJECTIVE))
    return [(key, _text(value)) for key, value in pairs]
