"""Protocols: what must be equal before two numbers may be compared, as a frozen record with a name and a hash.

The same tokenizer has PSNR 25.4, 26.0 and 27.4 dB in three papers: crop, resize, rounding, the mean of decibels or the
decibels of the mean, the window and range of SSIM, the feature network's own resize and the reference set differ.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from smalti.config import Document, build, load, read_yaml
from smalti.registry import UserError, suggest

Crop = Literal["none", "center", "adm_center", "resize_center"]
Resize = Literal["bicubic", "bilinear", "lanczos", "bilinear_plain"]
Quantize = Literal["none", "round", "truncate", "truncate128"]
Mean = Literal["image_mean", "pooled"]
Window = Literal["gaussian11", "uniform7"]
Border = Literal["reflect", "valid"]
LPIPSNetwork = Literal["vgg", "alex"]
FeatureResize = Literal["tf", "half_pixel", "pillow_bicubic"]
SUFFIXES = (".yaml", ".yml")
SHOWN = 12  # hex digits of a hash
SAME_CROPS = "same_crops"


@dataclass(frozen=True, kw_only=True)
class PSNRRule:
    """How PSNR is taken.

    Args:
        mean: ``image_mean``: the mean over images of their decibels; ``pooled``: the decibels of the mean squared error
            over all pixels of all images.
        data_range: of images in [0, 1]; 2 adds 6.02 dB.
        quantize: what is done to images before PSNR alone, after what the protocol does to all; None: nothing.
    """

    mean: Mean = "image_mean"
    data_range: Annotated[float, Field(gt=0.0)] = 1.0
    quantize: Quantize | None = None


@dataclass(frozen=True, kw_only=True)
class SSIMRule:
    """How SSIM is taken.

    Args:
        window: ``gaussian11`` (sigma 1.5), or ``uniform7`` with unbiased covariances (scikit-image's default).
        border: ``reflect``: windows centred on every pixel; ``valid``: those wholly in the image.
        data_range: of images in [0, 1]; 2 inflates the value, and its name says so.
        quantize: what is done to images before SSIM alone, after what the protocol does to all; None: nothing.
    """

    window: Window = "gaussian11"
    border: Border = "reflect"
    data_range: Annotated[float, Field(gt=0.0)] = 1.0
    quantize: Quantize | None = None


@dataclass(frozen=True, kw_only=True)
class FeatureRule:
    """Which features the distances between sets of images are taken in.

    Args:
        network: name of the extractor.
        resize: how it brings images to 299 x 299: ``tf`` (no half-pixel centres), ``half_pixel``, ``pillow_bicubic``
            (antialiased, each channel as float).
        layer: width of the features of FID and KID.
    """

    network: str = "inception_v3"
    resize: FeatureResize = "tf"
    layer: Literal[64, 192, 768, 2048] = 2048


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a number came about. Two protocols of one hash measure the same.

    Args:
        name: what it is called.
        title: one line for people.
        crop: ``none`` (images as they are), ``center`` (the middle, not resized), ``adm_center`` (halved with BOX while
            twice too large, then ``resize`` until it just covers, the middle), ``resize_center`` (the shorter side to
            ``size``, the middle).
        size: side of the square images; None for ``crop: none``.
        resize: filter of Pillow, antialiased; ``bilinear_plain``: two neighbours a direction as OpenCV, and the middle
            as albumentations takes it.
        quantize: what is done to reconstructions, and to images, before anything is measured: ``none`` (floats, clamped
            to the range), ``round`` (to 8 bits), ``truncate`` (255 (x + 1) / 2, cut off), ``truncate128`` (127.5 x +
            128, cut off: ADM's).
        psnr: how PSNR is taken.
        ssim: how SSIM is taken.
        lpips: the network of LPIPS: ``vgg``, or ``alex``, which the authors' package and torchmetrics take unless told.
        features: of FID and its kin.
        reference: ``same_crops``: the images themselves; else a file of moments with its hash, ``FILE#SHA256``.
        samples: number of images it is meant for; None: all there are.
        splits: of the inception score.
        neighbours: k of precision and recall.
        unverified: fields that could not be checked against the original.
        source: where it is from.
    """

    name: str
    title: str = ""
    crop: Crop = "resize_center"
    size: Annotated[int, Field(ge=1)] | None = None
    resize: Resize = "bicubic"
    quantize: Quantize = "none"
    psnr: PSNRRule = field(default_factory=PSNRRule)
    ssim: SSIMRule = field(default_factory=SSIMRule)
    lpips: LPIPSNetwork = "vgg"
    features: FeatureRule = field(default_factory=FeatureRule)
    reference: str = SAME_CROPS
    samples: Annotated[int, Field(ge=1)] | None = None
    splits: Annotated[int, Field(ge=1)] = 10
    neighbours: Annotated[int, Field(ge=1)] = 3
    unverified: Sequence[str] = ()
    source: str = ""

    def __post_init__(self) -> None:
        if (self.size is None) != (self.crop == "none"):
            expected = "no size for crop='none'" if self.crop == "none" else f"a size for crop={self.crop!r}"
            raise ValueError(f"size={self.size!r}: expected {expected}")
        odd = [name for name in self.unverified if name.partition(".")[0] not in MEASURING]
        if odd:
            raise ValueError(f"unverified: no field {odd[0]!r}{suggest(odd[0], MEASURING)}")

    @property
    def measuring(self) -> dict[str, Any]:
        """What decides a number, flat: ``psnr.mean`` and so on; names and sources apart.

        A ``quantize`` of PSNR or SSIM alone is left out where there is none, so that hashes from before there was one
        hold.
        """
        found: dict[str, Any] = {}
        for name, value in asdict(self).items():
            if name in MEASURING:
                found |= (
                    {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {name: value}
                )
        return {name: value for name, value in found.items() if value is not None or not name.endswith(".quantize")}

    @property
    def hash(self) -> str:
        """12 hex digits of the SHA-256 of what decides a number."""
        text = json.dumps(self.measuring, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:SHOWN]

    def differences(self, other: "Protocol") -> dict[str, tuple[Any, Any]]:
        """Field -> the values of both, where they differ."""
        ours, theirs = self.measuring, other.measuring
        both = {name: (ours.get(name), theirs.get(name)) for name in {**ours, **theirs}}
        return {name: values for name, values in both.items() if values[0] != values[1]}


MEASURING = tuple(item.name for item in fields(Protocol) if item.name not in {"name", "title", "unverified", "source"})


def shipped() -> tuple[str, ...]:
    """Names of the protocols that come with the package, sorted."""
    folder = resources.files("smalti.evaluation.protocols")
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def protocol_named(name: str, size: int | None = None) -> Protocol:
    """A shipped protocol, or one of a YAML file of one's own.

    Args:
        name: a shipped name, ``NAME@SIZE`` for images of another size, or a path that ends in ``.yaml``.
        size: the same as ``@SIZE``.

    Raises:
        UserError: if there is none, with the nearest name, or something in the file is wrong, with its line.
    """
    plain, _, asked = name.partition("@")
    if name.endswith(SUFFIXES):
        document = load(Path(name))
    elif plain in shipped():
        text = (resources.files("smalti.evaluation.protocols") / f"{plain}.yaml").read_text(encoding="utf-8")
        document = Document(read_yaml(text, plain))
    else:
        raise UserError(
            f"no protocol {plain!r}: expected {', '.join(shipped())}, or a file (.yaml){suggest(plain, shipped())}"
        )
    if asked and not (asked.isascii() and asked.isdigit() and 0 < int(asked) < 10**6):
        raise UserError(f"{name}: expected a number of pixels behind the @")
    wanted = size or (int(asked) if asked and not name.endswith(SUFFIXES) else None)
    data = dict(document.data)
    data.setdefault("name", Path(name).stem if name.endswith(SUFFIXES) else plain)
    if wanted is not None:
        if data.get("crop", "resize_center") == "none":
            raise UserError(f"{name}: {data['name']} takes images as they are: it has no size")
        data["size"] = wanted
    return build(data, Protocol)
