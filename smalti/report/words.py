"""Measured numbers in words: the name a reader knows, a sensible number of digits, the unit."""

import re
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
    "lpips_alex": ("LPIPS in AlexNet", "", 4),
    "fid": ("FID", "", 3),
    "sfid": ("sFID", "", 3),
    "fid_infinity": ("FID of infinitely many images", "", 3),
    "kid": ("KID", "", 5),
    "kid_subsets": ("KID, mean of subsets", "", 5),
    "kid_subsets_deviation": ("KID, deviation of subsets", "", 5),
    "inception_score": ("inception score", "", 2),
    "inception_score_deviation": ("inception score, deviation of parts", "", 2),
    "precision_recall_precision": ("precision", "%", 1),
    "precision_recall_recall": ("recall", "%", 1),
    "density_coverage_density": ("density", "", 3),
    "density_coverage_coverage": ("coverage", "%", 1),
    "codebook_mutual_information": ("mutual information of codebooks", "bit", 3),
    "codebook_mutual_information_chance": ("mutual information by chance", "bit", 3),
    "bits_per_token": ("bits per token", "bit", 3),
    "bits_per_pixel": ("bits per pixel", "bit", 3),
    "jpeg_psnr": ("PSNR of JPEG at as many bits", "dB", 2),
    "jpeg_bits_per_pixel": ("bits per pixel of that JPEG", "bit", 3),
    "codebook_usage": ("codebook usage", "%", 1),
    "usage": ("codebook usage", "%", 1),
    "perplexity": ("codebook perplexity", "codes", 1),
    "entropy": ("entropy of codes", "bit", 3),
    "zipf": ("Zipf's exponent of codes", "", 3),
    "largest": ("share of the most frequent code", "%", 1),
    "mutual_information": ("mutual information", "bit", 3),
    "mutual_information_chance": ("mutual information by chance", "bit", 3),
    "psnr_at_mean": ("PSNR with this codebook at its mean", "dB", 2),
    "latent_statistics_mean": ("mean of latents", "", 4),
    "latent_statistics_std": ("deviation of latents", "", 4),
    "latent_statistics_std_lowest": ("deviation of latents, least of a channel", "", 4),
    "latent_statistics_std_highest": ("deviation of latents, largest of a channel", "", 4),
    "latent_statistics_std_sampled": ("deviation of sampled latents", "", 4),
    "latent_statistics_skewness": ("skewness of latents", "", 3),
    "latent_statistics_kurtosis": ("excess kurtosis of latents", "", 3),
    "latent_statistics_effective_rank": ("effective rank of latents", "channels", 2),
    "latent_statistics_constant": ("constant latent channels", "channels", 0),
    "latent_statistics_kl": ("KL to N(0, 1) of a latent value", "nat", 4),
    "bits_per_image": ("bits per image", "bit", 0),
    "bits_per_image_effective": ("bits per image, entropy-coded", "bit", 0),
    "sliced_wasserstein": ("sliced Wasserstein distance", "", 4),
    "sliced_wasserstein_floor": ("sliced Wasserstein distance of real images", "", 4),
    "wasserstein": ("Wasserstein distance", "", 4),
    "sample_diversity": ("sample diversity", "", 4),
    "digit_coverage": ("classes of digits among the samples", "", 0),
    "seconds": ("training time", "s", 1),
    "step": ("generator updates", "", 0),
    "training_images": ("images seen in training", "", 0),
}
_GROUPS = ("codebook_report",)  # words in front of a name that are no part of it
_ENDS = (("_low", ", lower end of 95 %"), ("_high", ", upper end of 95 %"))
START = "_start"  # what was measured before training
# Numbers whose names hold a number or a network.
_PATTERNS: tuple[tuple[re.Pattern[str], str, str, int], ...] = (
    (re.compile(r"psnr_bands_(\d+)"), "PSNR of band {}", "dB", 2),
    (re.compile(r"fd_infinity_(\w+)"), "Frechet distance of infinitely many images ({})", "", 3),
    (re.compile(r"fd_(\w+)"), "Frechet distance ({})", "", 3),
    (re.compile(r"sfd_(\w+)"), "spatial Frechet distance ({})", "", 3),
    (re.compile(r"kid_(?!subsets)(\w+?)"), "kernel distance ({})", "", 5),
    (re.compile(r"inception_score_(?!deviation)(\w+?)"), "inception score ({})", "", 2),
    (re.compile(r"precision_recall_(\w+)_precision"), "precision ({})", "%", 1),
    (re.compile(r"precision_recall_(\w+)_recall"), "recall ({})", "%", 1),
    (re.compile(r"density_coverage_(\w+)_density"), "density ({})", "", 3),
    (re.compile(r"density_coverage_(\w+)_coverage"), "coverage ({})", "%", 1),
)


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
    parts = [part for part in key.split("/") if part not in _GROUPS]
    known = next(((i, found) for i, part in enumerate(parts) if (found := quantity(part))), None)
    if known is None or isinstance(value, (str, bool)) or not isinstance(value, (int, float)):
        return _NAMES.get(key, key.replace("_", " ")), _text(value)
    index, (name, unit, digits) = known
    rest = " ".join(parts[:index] + parts[index + 1 :])
    number = f"{100 * value if unit == '%' else value:,.{digits}f}"
    return f"{name} ({rest})" if rest else name, f"{number} {unit}".strip()


def heading(key: str) -> str:
    """Name of a measurement above a column of plain numbers, with the unit that they have.

    >>> heading("psnr"), heading("codebook_usage"), heading("fid"), heading("mine")
    ('PSNR, dB', 'codebook usage', 'FID', 'mine')
    """
    known = quantity(key.partition("/")[0])
    unit = known[1] if known else ""
    return describe(key, 0.0)[0] + (f", {unit}" if unit in {"dB", "nat"} else "")


def quantity(part: str) -> tuple[str, str, int] | None:
    """Name, unit and digits of a plain name; ends of intervals as their number; None if it is not known.

    >>> quantity("psnr"), quantity("mine"), quantity("psnr_start")
    (('PSNR', 'dB', 2), None, ('PSNR before training', 'dB', 2))
    """
    if part in _QUANTITIES:
        return _QUANTITIES[part]
    for end, words in (*_ENDS, (START, " before training")):
        of = quantity(part.removesuffix(end)) if part.endswith(end) else None
        if of is not None:
            return of[0] + words, *of[1:]
    for pattern, name, unit, digits in _PATTERNS:
        found = pattern.fullmatch(part)
        if found:
            return name.format(found[1].replace("_", " ")), unit, digits
    return None


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
    return [describe(key, value) for key, value in shown if not _is_said(key, evaluation)]


def _is_said(key: str, evaluation: Mapping[str, Any]) -> bool:
    """Whether a number of the whole is there: of the only codebook, of all channels, or what the interval is of."""
    wholes = [key.rpartition("/")[0], *(key.removesuffix(end) for end, _ in _ENDS if key.endswith(end))]
    return any(is_number(evaluation.get(whole)) for whole in wholes)


def terms(evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The objective on the held-out images: log name and value."""
    pairs = ((key.removeprefix(_OBJECTIVE), value) for key, value in flatten(evaluation) if key.startswith(_OBJECTIVE))
    return [(key, _text(value)) for key, value in pairs]
