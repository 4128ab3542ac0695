"""Example values for the arguments of any part: options by annotation, inputs by the name a context would give them.

Nothing here knows a part by name, so a new file in a kind's folder is tested by that kind's suite at once.
"""

import dataclasses
import inspect
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from smalti.config.schema import option_parameters, type_hints
from smalti.extractors import Extractor
from smalti.extractors.lpips import LPIPS
from smalti.losses import Loss
from smalti.losses.l1 import L1
from smalti.outputs import CODE_TERMS, CodebookRecord, DiagonalGaussian, DiscriminatorOutput
from smalti.registry import Part, classes

BATCH, CHANNELS, SIZE = 2, 3, 16
TINY_LPIPS = {"weights": "random", "widths": (4, 4, 8, 8, 8)}
# Options whose defaults need larger images than these, by the option's name.
SMALL = {"scale_weights": (0.4, 0.6)}


def registered(base: type[Part]) -> Iterator[type[Part]]:
    """Every class of a kind, both players' of an adversarial pair."""
    for members in classes(base).values():
        yield from members


def options_of(target: Any) -> dict[str, Any]:
    """Values for what a constructor demands, and for extractors, whose defaults need files from the net."""
    hints = type_hints(target)
    options: dict[str, Any] = {}
    for name, parameter in option_parameters(target).items():
        members = typing.get_args(hints.get(name)) or (hints.get(name),)
        networks = [member for member in members if inspect.isclass(member) and issubclass(member, Extractor)]
        if networks:
            options[name] = tiny(networks[0])
        elif name in SMALL:
            options[name] = SMALL[name]
        elif parameter.default is inspect.Parameter.empty:
            options[name] = option(hints[name])
    return options


def tiny(kind: type[Extractor]) -> Extractor:
    """A small extractor with random weights: LPIPS where any will do, else the first registered one of the kind."""
    if kind is Extractor:
        return LPIPS(**TINY_LPIPS)
    return next(cls for cls in registered(Extractor) if issubclass(cls, kind))(weights="random")


def option(annotation: Any) -> Any:
    """Some value that an annotation allows."""
    origin, members = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return option(members[0])
    if origin is typing.Literal:
        return members[0]
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return {"first": option(members[1])}
    if inspect.isclass(origin) and issubclass(origin, Sequence):
        return (option(members[0]),)
    if dataclasses.is_dataclass(annotation):
        return annotation(**options_of(annotation))
    simple = {Loss: L1, int: lambda: 1, float: lambda: 0.5, str: lambda: "first", bool: lambda: True}
    return simple[annotation]()


def inputs_of(forward: Any, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """Values for the inputs that ``forward`` demands, random but the same each time; tensors want gradients."""
    names = [
        name
        for name, parameter in inspect.signature(forward).parameters.items()
        if parameter.default is inspect.Parameter.empty and name != "self"
    ]
    return {name: value_of(name, dtype) for name in names}


def value_of(name: str, dtype: torch.dtype = torch.float64) -> Any:
    """What a context offers under a name."""
    generator = torch.Generator().manual_seed(sum(map(ord, name)))

    def random(*shape: int) -> Tensor:
        values = torch.rand(*shape, generator=generator, dtype=torch.float64)
        return values.to(dtype).requires_grad_()

    def image() -> Tensor:
        return (2.0 * random(BATCH, CHANNELS, SIZE, SIZE) - 1.0).detach().requires_grad_()

    makers = {
        "prediction": image,
        "target": image,
        "fake": image,
        "real": image,
        "logits_real": lambda: random(BATCH, 1, 4, 4),
        "logits_fake": lambda: random(BATCH, 1, 4, 4),
        "features_real": lambda: (random(BATCH, 4, 8, 8), random(BATCH, 8, 4, 4)),
        "features_fake": lambda: (random(BATCH, 4, 8, 8), random(BATCH, 8, 4, 4)),
        "posterior": lambda: DiagonalGaussian(random(BATCH, 4, 4, 4), random(BATCH, 4, 4, 4)),
        "codebooks": lambda: {"texture": _record(random, codes=8), "shape": _record(random, codes=6)},
        "logits": lambda: {"texture": random(BATCH, 4, 4, 8), "shape": random(BATCH, 4, 4, 6)},
        "indices": lambda: torch.arange(BATCH * 32).reshape(BATCH, 2, 4, 4) % 6,
        "discriminator": lambda: _critic(dtype),
        "student": lambda: random(BATCH, 5),
        "teacher": lambda: (random(BATCH, 3), random(BATCH, 5)),
        "step": lambda: 3,
        "reconstruction_real": image,
        "reconstruction_fake": image,
        "mask": lambda: random(BATCH, 1, SIZE, SIZE),
        "latents": lambda: random(BATCH, 2, 5),
        "generator": lambda: _generator(dtype),
        "alpha": lambda: random(BATCH, 1, SIZE, SIZE),
        "foreground": image,
        "background": image,
        "maps": lambda: (random(BATCH, 4, 4, 4), random(BATCH, 2, 8, 8)),
        "textures": lambda: (random(BATCH, 4, 4, 4) - 1.0, random(BATCH, 2, 8, 8) - 1.0),
        "text": lambda: tuple(f"picture {number}" for number in range(BATCH)),
    }
    return makers[name]()


def _record(random: Any, codes: int, width: int = 3) -> CodebookRecord:
    # Every tensor is a leaf of its own, so that each gradient can be checked by itself.
    z = random(BATCH, width, 4, 4)
    indices = torch.arange(BATCH * 16).reshape(BATCH, 4, 4) % codes
    shape = (BATCH, width, 4, 4)
    return CodebookRecord(
        z=z,
        quantized=random(*shape),
        latent=random(*shape),
        codebook=random(codes, width),
        indices=indices,
        terms=CODE_TERMS | {"categorical_kl"},
    )


def _critic(dtype: torch.dtype) -> Any:
    network = nn.Sequential(nn.Conv2d(CHANNELS, 4, 3), nn.Softplus(), nn.Conv2d(4, 1, 3)).to(dtype)
    return lambda images: DiscriminatorOutput(logits=network(images))


def _generator(dtype: torch.dtype) -> Any:
    network = nn.Sequential(nn.Flatten(), nn.Linear(10, 12), nn.Tanh(), nn.Unflatten(1, (CHANNELS, 2, 2))).to(dtype)
    return network.__call__


def leaves(value: Any) -> Iterator[Tensor]:
    """The floating tensors inside an input."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from leaves(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name))


def replace_leaf(value: Any, old: Tensor, new: Tensor) -> Any:
    """The same input with one tensor exchanged."""
    if value is old:
        return new
    if isinstance(value, Mapping):
        return {key: replace_leaf(item, old, new) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(replace_leaf(item, old, new) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return dataclasses.replace(value, **{name: replace_leaf(getattr(value, name), old, new) for name in names})
    return value
