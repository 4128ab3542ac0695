"""Features of the images of an observation, and what a number of such features is called.

All metrics of a pass that use one network share what it found: the last observation's features are remembered.
"""

import hashlib
import re
import weakref
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from smalti.extractors import Extractor
from smalti.extractors._inception import Layer
from smalti.extractors.inception_v3 import InceptionV3
from smalti.losses._range import SIGNED, check_images, clamped
from smalti.metrics import Observation
from smalti.nn.precision import full_precision
from smalti.registry import UserError, arguments_of

Side = Literal["real", "made"]
USED: tuple[Layer, ...] = ("spatial", "2048", "logits_unbiased")  # by the metrics of Inception-v3, in one pass
_RANDOM = "random weights"
_hashes: "weakref.WeakKeyDictionary[nn.Module, str]" = weakref.WeakKeyDictionary()
_published: "weakref.WeakValueDictionary[str, InceptionV3]" = weakref.WeakValueDictionary()


class _Memory:
    """Features of one observation, forgotten with it."""

    def __init__(self) -> None:
        self.observation: Any = lambda: None
        self.found: dict[tuple[nn.Module, Side, str], Tensor] = {}

    def of(self, observation: Observation) -> dict[tuple[nn.Module, Side, str], Tensor]:
        if self.observation() is not observation:
            found: dict[tuple[nn.Module, Side, str], Tensor] = {}
            self.found = found
            self.observation = weakref.ref(observation, lambda _: found.clear())
        return self.found


_memory = _Memory()


def published_inception() -> InceptionV3:
    """Inception-v3 with its published weights, one network for all that ask.

    Raises:
        UserError: if the file cannot be had, saying how else to give it.
    """
    network = _published.get("")
    if network is None:
        try:
            network = InceptionV3()
        except UserError as error:
            raise UserError(f"{error}; of a metric: extractor: {{type: inception_v3, weights: PATH}}") from error
        if not next(network.buffers()).is_meta:
            _published[""] = network
    return network


def chosen_layer(extractor: nn.Module, layers: Sequence[Layer]) -> Layer | None:
    """Which layer of Inception-v3 a metric looks at: the last that was asked for, else its own; of others None.

    Args:
        extractor: any.
        layers: those that the metric can use, its own first.

    Raises:
        ValueError: if none of the extractor's ``layers`` is one of them.
    """
    if not isinstance(extractor, InceptionV3):
        return None
    if extractor.layers is None:
        return layers[0]
    fitting = [layer for layer in extractor.layers if layer in layers]
    if not fitting:
        wanted = " or ".join(map(repr, layers))
        raise ValueError(f"extractor.layers={list(extractor.layers)}: expected {wanted}, or none")
    return fitting[-1]


def features_of(extractor: nn.Module, observation: Observation, side: Side, layer: Layer | None) -> Tensor:
    """Features of the real or the made images, (B, C) or (B, C, h, w), in at least float32, without a graph.

    Args:
        extractor: any; moved to where the images are.
        observation: its images are (B, C, H, W); the made ones are clamped to [-1, 1].
        side: which images.
        layer: of Inception-v3; None: the last feature that the extractor gives.

    Raises:
        ValueError: for real images outside [-1, 1].
    """
    found = _memory.of(observation)
    key = (extractor, side, layer or "")
    if key not in found:
        check_images(observation.reconstruction, observation.target, SIGNED)
        images = observation.target if side == "real" else observation.reconstruction
        extractor = extractor.to(images.device)
        with torch.no_grad(), full_precision():
            images = clamped(images.float(), SIGNED)
            if layer is not None and isinstance(extractor, InceptionV3):
                layers = {*USED, layer} if extractor.layers is None else {layer}
                for name, feature in extractor.features(images, sorted(layers)).items():
                    found[extractor, side, name] = feature
            else:
                found[key] = extractor(images)[-1]
    return found[key]


def pooled(feature: Tensor) -> Tensor:
    """(B, C) of a feature: the mean over places, if it has any.

    Example:
        >>> pooled(torch.ones(2, 3, 4, 5)).shape, pooled(torch.ones(2, 3)).shape
        (torch.Size([2, 3]), torch.Size([2, 3]))
    """
    return feature.flatten(2).mean(dim=2) if feature.ndim > 2 else feature


def called(own: str, foreign: str, extractor: nn.Module, layer: Layer | None, usual: Layer) -> str:
    """What a number is called: ``own`` with the published Inception-v3 at its usual layer, else after the network.

    Example:
        >>> called("fid", "fd", InceptionV3(weights="random"), "2048", "2048")
        'fd_random_inception'
    """
    if isinstance(extractor, InceptionV3) and extractor.published and layer == usual:
        return own
    return f"{foreign}_{label(extractor)}{'' if layer in {None, usual} else f'_{layer}'}"


def label(extractor: nn.Module) -> str:
    """A network's name as a word: ``dinov2_small``, ``random_inception``, ``vgg16_mine`` with weights of mine.pth.

    Example:
        >>> from smalti.extractors.vgg16 import VGG16
        >>> label(VGG16(weights="random", widths=(4, 4, 8, 8, 8)))
        'random_vgg16'
    """
    name, _, note = str(getattr(extractor, "name", type(extractor).__name__)).partition(" (")
    note = note.removesuffix(")")
    options = arguments_of(extractor) if isinstance(extractor, Extractor) else {}
    if note == _RANDOM or options.get("weights") == "random":
        return f"random_{_word(name.removesuffix('_v3'))}"
    stems = [re.sub(r"\.\w+$", "", file) for file in note.split(", ")]
    return "_".join(filter(None, map(_word, [name, *stems])))


def hashed(extractor: nn.Module, of: str) -> str:
    """16 hex digits that tell a network by its class, options and numbers, and what is taken ``of`` it.

    Example:
        >>> one, same, other = (nn.Conv2d(1, 1, 1) for _ in range(3))
        >>> same.load_state_dict(one.state_dict())
        <All keys matched successfully>
        >>> hashed(one, "last") == hashed(same, "last") != hashed(other, "last") != hashed(one, "first")
        True
    """
    if extractor not in _hashes:
        options = arguments_of(extractor) if isinstance(extractor, Extractor) else {}
        told = {name: value for name, value in options.items() if name != "weights"}  # the numbers are told below
        digest = hashlib.sha256(f"{type(extractor).__module__}.{type(extractor).__qualname__} {told}".encode())
        for name, value in sorted({**dict(extractor.named_parameters()), **dict(extractor.named_buffers())}.items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        _hashes[extractor] = digest.hexdigest()
    return hashlib.sha256(f"{_hashes[extractor]} {of}".encode()).hexdigest()[:16]


def _word(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
