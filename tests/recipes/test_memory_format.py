"""``engine.channels_last`` from end to end: in a step of every shipped recipe no image changes its memory format."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils import _pytree as pytree

from smalti.discriminators import Augmentation
from smalti.discriminators.ada import ADA
from smalti.discriminators.diff_augment import DiffAugment
from smalti.extractors import Extractor
from smalti.extractors.vision_transformer import VisionTransformer
from tests.contracts.examples import registered, tiny
from tests.recipes.steps import in_turn, step_of, with_images

GREY = "a grey image and a 1 x 1 kernel have no memory format; what is made of the answer has"
RECORDS = "terms over latents give contiguous gradients; they are turned where they leave the quantizer"
LINEAR = "a linear layer reads the last map, of 4 x 4 pixels, channel by channel"
SECOND = "torch's second derivative of a convolution, as a gradient penalty needs it, is contiguous"
# Where a module may leave channels_last, and why.
EXCEPTIONS = {
    "EqualizedConv gives": GREY,
    "ParametrizedConv2d gives": GREY,
    **dict.fromkeys((f"{name} is told" for name in ("Tokens", "_Branch", "Gaussian")), RECORDS),
    **dict.fromkeys((f"{name} is told" for name in ("Nearest", "IBQ", "LFQ", "SimVQ", "Residual")), RECORDS),
}
EXCEPTIONS_OF = {
    "digits-tokenizer": {"Conv2d is told": GREY, "_Head is told": GREY},  # pixels of grey images, put apart again
    "r3gan": {"Conv2d is told": SECOND},
    "stylegan2-64": {"EqualizedConv is told": LINEAR, "StyleGAN2 is told": LINEAR},
    "stylegan2-256": {"EqualizedConv is told": LINEAR, "StyleGAN2 is told": LINEAR},
}


def left(tensor: Any) -> bool:
    """Whether a tensor is an image with its channels apart: (B, C, H, W) with several of both and not channels_last."""
    if not isinstance(tensor, Tensor) or tensor.ndim != 4 or not tensor.is_floating_point():
        return False
    channels, pixels = tensor.shape[1], tensor.shape[2] * tensor.shape[3]
    neighbours = tensor.stride(1) == 1 and min(tensor.stride()[2:]) >= channels  # also of a part of the channels
    return channels > 1 and pixels > 1 and not neighbours


@contextmanager
def watched() -> Iterator[set[str]]:
    """What leaves channels_last inside: a class of modules, whether it takes it, gives it or is told it, the shape.

    A module is told the gradient of what it gave.
    """
    found: set[str] = set()

    def look(tensors: Any, what: str) -> None:
        for tensor in pytree.tree_leaves(tensors):
            if left(tensor):
                found.add(f"{what} {tuple(tensor.shape)}")

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        name = type(module).__name__
        look(inputs, f"{name} takes")
        look(output, f"{name} gives")
        for tensor in pytree.tree_leaves(output):
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                tensor.register_hook(lambda gradient: look(gradient, f"{name} is told"))

    handle = register_module_forward_hook(note)
    try:
        yield found
    finally:
        handle.remove()


@cache
def leaving(name: str) -> frozenset[str]:
    """What leaves channels_last in a step of a recipe, without its shapes."""
    step = step_of(name, "engine.channels_last=true")
    with watched() as found:
        step()
    return frozenset(what.split(" (")[0] for what in found)


@pytest.mark.parametrize("name", in_turn(with_images()))
def test_no_image_leaves_channels_last(name: str) -> None:
    known = EXCEPTIONS | EXCEPTIONS_OF.get(name, {})
    assert not sorted(leaving(name) - set(known))


def test_no_exception_is_one_for_nothing() -> None:
    names = ("biggan-32", "vqgan-f16", "vae-kl-f8", "ibq-f16", "lfq-f8", "simvq-f16", "rqvae-f8", *EXCEPTIONS_OF)
    assert set(EXCEPTIONS) <= set().union(*map(leaving, names))
    assert all(set(known) <= leaving(name) for name, known in EXCEPTIONS_OF.items())


NETWORKS = [cls for cls in registered(Extractor) if cls is not VisionTransformer]  # that of the recipes of FQGAN


@pytest.mark.parametrize("cls", NETWORKS)
def test_no_image_leaves_channels_last_in_frozen_networks(cls: type[Extractor]) -> None:
    network = tiny(cls).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.rand(2, 3, 64, 64).to(memory_format=torch.channels_last).requires_grad_()
    with watched() as found:
        sum(feature.abs().mean() for feature in network(images)).backward()
    # What the network itself gives has the gradient of a mean, which is turned on its way in.
    inner = ("Conv2d", "FrozenConvolution", "MaxOut")
    told = {what for what in found if what.split(" is told")[0] in inner}
    assert not sorted(what for what in found if " is told" not in what) + sorted(told)


@pytest.mark.parametrize("augmentation", [ADA(initial=1.0), DiffAugment()])
def test_augmented_images_stay_in_channels_last(augmentation: Augmentation) -> None:
    images = torch.rand(4, 3, 16, 16).to(memory_format=torch.channels_last)
    condition = torch.rand(4, 2, 16, 16).to(memory_format=torch.channels_last)
    with watched() as found:
        augmentation.train()(images, condition)
        augmentation(images)
    assert not found


def test_the_watch_sees_what_leaves() -> None:
    class Turned(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.contiguous()

    x = torch.randn(1, 2, 3, 3).to(memory_format=torch.channels_last).requires_grad_()
    with watched() as found:
        Turned()(x).square().sum().backward()
    assert found == {"Turned gives (1, 2, 3, 3)", "Turned is told (1, 2, 3, 3)"}
