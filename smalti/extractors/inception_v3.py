"""Inception-v3 of the FID: the one network that Frechet, kernel and Inception distances of the literature mean."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from torch import Tensor
from torch.nn import functional as F

from smalti.extractors import Extractor
from smalti.extractors._download import PinnedFile, check_claimed_hash, fetch, sha256_of
from smalti.extractors._frozen import freeze_filled
from smalti.extractors._images import Channels, as_rgb, resize_like_tensorflow1
from smalti.extractors._inception import Inception, Layer
from smalti.extractors._transformers import on_meta_device
from smalti.extractors._weights import label_of, paths_of, read_tensors
from smalti.nn.precision import at_least_float32, full_precision
from smalti.registry import suggest

FILE = PinnedFile(
    name="pt_inception-2015-12-05-6726825d.pth",
    url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    sha256="6726825d",  # as many digits as are published
    megabytes=91,
)
SIDE = 299
LEAST_SIDE = 75  # what leaves a place to the last block

Resize = Literal["tf", "half_pixel", "pillow_bicubic", "none"]


class InceptionV3(Extractor):
    """Features of Inception-v3 with the weights of December 2015 (Szegedy et al., arXiv:1512.00567; FID: 1706.08500).

    Images are in [-1, 1]. They are computed in at least float32, with TF32 and autocast off: narrower features change
    the distances. Frozen, in evaluation mode for ever. Built on the meta device it needs no weights, and reads and
    downloads nothing. ``published`` says whether the weights are the published ones, by their SHA-256.

    Args:
        weights: ``pretrained`` (pytorch-fid's file, downloaded once), ``random`` (always the same), or the path of a
            file with its 566 names; several paths are read together. A file whose name ends in digits of its SHA-256,
            as the published one's does, must have that SHA-256.
        layers: which features, and in which order: ``64``, ``192`` (after the first and second pool), ``768``,
            ``2048`` (means over places), ``logits_unbiased`` (1008, without the bias), ``spatial`` (7 channels of all
            17 x 17 places, 2023); None: ``2048``, and of a metric the one that it is made for.
        resize: to 299 x 299 pixels: ``tf`` as TensorFlow 1 did (bilinear, no half pixel, no antialiasing) and the FID's
            first program and torch-fidelity do; ``half_pixel`` as pytorch-fid; ``pillow_bicubic`` as clean-fid
            (antialiased, channels as floats); ``none``: at their own size.
        channels: which channels of the images it sees, and in which order, counted from 0; None: all, one or three.

    Example:
        >>> import torch
        >>> network = InceptionV3(weights="random", layers=["64", "768"])
        >>> network.name, [tuple(feature.shape) for feature in network(torch.zeros(1, 3, 32, 48))]
        ('inception_v3 (random weights)', [(1, 64), (1, 768)])
    """

    exact = True

    def __init__(
        self,
        *,
        weights: str | Sequence[str] = "pretrained",
        layers: Sequence[Layer] | None = None,
        resize: Resize = "tf",
        channels: Channels | None = None,
    ) -> None:
        super().__init__(channels)
        self.layers = None if layers is None else _checked(layers)
        if resize not in get_args(Resize):
            raise ValueError(f"resize={resize!r}: expected {', '.join(map(repr, get_args(Resize)))}")
        self.resize = resize
        self.smallest_size = LEAST_SIDE if resize == "none" else 1
        paths = paths_of(weights)
        self.published = weights == "pretrained" or (not on_meta_device() and _is_published(paths))
        self.name = f"inception_v3{'' if self.published else label_of(weights)}"
        self.network = _network()
        freeze_filled(self.network, weights, lambda: _read(paths), self.name)
        self.train(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The features ``layers`` of images with shape (B, 3, H, W) or (B, 1, H, W) in [-1, 1], each (B, D)."""
        layers: Sequence[Layer] = self.layers or ("2048",)
        found = self.features(images, layers)
        return tuple(found[layer] for layer in layers)

    @full_precision()
    def features(self, images: Tensor, layers: Sequence[Layer]) -> Mapping[str, Tensor]:
        """Any layers by name, each (B, D), of images with shape (B, 3, H, W) or (B, 1, H, W) in [-1, 1]."""
        if self.resize == "none" and min(images.shape[-2:]) < LEAST_SIDE:
            raise ValueError(
                f"images of {images.shape[-2]} x {images.shape[-1]} pixels: without resize Inception-v3 needs at least "
                f"{LEAST_SIDE} x {LEAST_SIDE}"
            )
        found: dict[str, Tensor] = self.network(prepare(images, self.resize), layers)
        return found


def prepare(images: Tensor, resize: Resize) -> Tensor:
    """Images (B, 3, H, W) or (B, 1, H, W) in [-1, 1] as the network wants them, (B, 3, 299, 299) unless not resized.

    With 8-bit values u and x = u / 127.5 - 1, the network of ``half_pixel`` gets x itself, that of the others
    (u - 128) / 128, which is x 255 / 256 - 1 / 256. ``pillow_bicubic`` limits u to 0 to 255 and rounds nothing.

    Example:
        >>> import torch
        >>> (prepare(torch.tensor([-1.0, 1.0]).reshape(1, 1, 1, 2), "none") * 128.0 + 128.0)[0, 0]
        tensor([[  0., 255.]])
    """
    x = at_least_float32(as_rgb(images))
    if resize == "half_pixel":
        return F.interpolate(x, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    values = (x + 1.0) * 127.5
    if resize == "tf":
        values = resize_like_tensorflow1(values, SIDE, SIDE)
    if resize == "pillow_bicubic":
        # In double precision, as Pillow: places of pixels in float32 are off by hundredths of a level.
        exact = values if values.device.type == "mps" else values.double()
        exact = F.interpolate(exact, size=(SIDE, SIDE), mode="bicubic", antialias=True)
        values = exact.clamp(0.0, 255.0).to(values.dtype)
    return (values - 128.0) / 128.0


def _checked(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    if isinstance(layers, str) or not layers or len(set(layers)) < len(layers):
        raise ValueError(f"layers={layers!r}: expected a list of one or more different names")
    known = get_args(Layer)
    for layer in layers:
        if layer not in known:
            raise ValueError(f"layers: no layer {layer!r}{suggest(str(layer), known)}")
    return tuple(layers)


def _network() -> Inception:
    import torch

    with torch.random.fork_rng(devices=[]):  # building draws numbers that are overwritten below
        return Inception()


def _is_published(paths: Sequence[Path]) -> bool:
    """Whether the files are the published one; one whose name tells another SHA-256 than it has is refused."""
    for path in paths:
        check_claimed_hash(path)
    return len(paths) == 1 and sha256_of(paths[0]).startswith(FILE.sha256)


def _read(paths: Sequence[Path]) -> dict[str, Tensor]:
    """The tensors of the files, or the published ones, without counters of batches, which nothing uses."""
    tensors = read_tensors(paths or [fetch(FILE, "weights")])
    return {key: value for key, value in tensors.items() if not re.search(r"\.num_batches_tracked$", key)}
