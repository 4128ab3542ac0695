"""The context of one pass: names -> values, computed at most once and only if a term asks."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor, nn

from smalti.discriminators import Discriminator
from smalti.objectives.names import LABEL, SHORT_FORMS
from smalti.objectives.values import full_precision
from smalti.outputs import Batch, DiscriminatorOutput
from smalti.registry import UserError, suggest


@runtime_checkable
class Sampler(Protocol):
    """A model that makes images from noise given from outside; see :func:`draws_images`."""

    def sample(self, noise: Tensor) -> Tensor:
        """Images with shape (B, C, H, W) from noise with shape (B, ...)."""


def draws_images(model: Any) -> TypeGuard[Sampler]:
    """Whether a model, or its class, makes images from noise given from outside: only such a one has ``generator``.

    A model that draws tokens samples too, from no noise, and makes no image that an adversary could judge.
    """
    return callable(getattr(model, "sample", None)) and getattr(model, "judged", None) is not None


def sampler(model: Sampler, batch: Batch) -> Callable[[Tensor], Tensor]:
    """``model.sample`` of noise or latents (n, ...), n <= B; a class-conditional model makes the batch's labels."""
    if not getattr(model, "num_classes", 0):
        return model.sample
    labels: Tensor = batch[LABEL]
    conditional: Callable[[Tensor, Tensor], Tensor] = model.sample  # type: ignore[assignment]
    return lambda noise: conditional(noise, labels[: len(noise)])


def zero_of(network: nn.Module, batch: Batch) -> Tensor:
    """A scalar 0 in full precision, on the device and of the type that ``network`` works in, or else ``batch`` is."""
    numbers = (value for value in (*network.parameters(), *batch.values()) if isinstance(value, Tensor))
    for value in numbers:
        if value.is_floating_point():
            zero: Tensor = full_precision(value.detach().new_zeros(()))
            return zero
    return torch.zeros(())


def target_of(batch: Batch) -> Tensor:
    """The images (B, C, H, W) of a batch in full precision.

    Raises:
        UserError: if it has none.
    """
    if "image" not in batch:
        raise UserError(f"'target' is the batch's images, and it has none: its columns are {', '.join(batch)}")
    images: Tensor = full_precision(batch["image"])
    return images


class Context:
    """Names -> memoised values.

    Args:
        thunks: name -> how to compute it.
        output: the model's output, whose fields are reached by dotted names; None if there is none in this pass.
    """

    def __init__(self, thunks: Mapping[str, Callable[[], Any]], output: Any = None) -> None:
        self._thunks = thunks
        self._output = output
        self._values: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        """The value of ``name``, half-precision tensors widened to float32.

        Raises:
            UserError: if the name is unknown or the model left it empty.
        """
        if name not in self._values:
            value = full_precision(self._compute(name))
            if value is None:
                raise UserError(f"context name {name!r} is empty: this model does not provide it")
            self._values[name] = value
        return self._values[name]

    def computed(self, name: str) -> bool:
        """Whether anyone has asked for ``name``."""
        return name in self._values

    def _compute(self, name: str) -> Any:
        if name in self._thunks:
            return self._thunks[name]()
        first, _, rest = name.partition(".")
        if first in self._thunks:
            return _walk(self[first], rest.split("."), name)
        parts = name.split(".")
        if first in SHORT_FORMS and first not in _fields(self._output):
            parts = ["bottleneck", *parts]
        if parts[0] not in _fields(self._output):
            raise UserError(f"unknown context name {name!r}{suggest(name, [*self._thunks, *_fields(self._output)])}")
        return _walk(self._output, parts, name)


def _fields(value: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else []


def _walk(value: Any, parts: list[str], name: str) -> Any:
    for part in parts:
        known = list(value) if isinstance(value, Mapping) else _fields(value)
        if part not in known:
            raise UserError(f"context name {name!r}: no {part!r}{suggest(part, map(str, known))}")
        value = value[part] if isinstance(value, Mapping) else getattr(value, part)
    return value


@dataclasses.dataclass(frozen=True)
class Precision:
    """Terms run in full precision; the networks inside them may follow the autocast that a phase was entered with.

    Args:
        device: type of the device, such as ``cuda``; None if it knows no autocast.
        enabled: whether autocast was on.
        dtype: what it casts to.
    """

    device: str | None
    enabled: bool = False
    dtype: torch.dtype = torch.float32

    @classmethod
    def ambient(cls, device: torch.device) -> "Precision":
        """What is in force now for tensors on ``device``."""
        kind = device.type
        if not torch.amp.is_autocast_available(kind):
            return cls(None)
        return cls(kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))

    def terms(self) -> contextlib.AbstractContextManager[object]:
        """Autocast off."""
        return contextlib.nullcontext() if self.device is None else torch.autocast(self.device, enabled=False)

    def networks(self) -> contextlib.AbstractContextManager[object]:
        """Autocast as it was found."""
        if self.device is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device, dtype=self.dtype, enabled=self.enabled)


@contextlib.contextmanager
def frozen(network: nn.Module | None) -> Iterator[None]:
    """Within it the network's parameters ask for no gradient; afterwards, error or not, they are as before."""
    parameters = [p for p in network.parameters() if p.requires_grad] if network is not None else []
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def equal_draws(network: nn.Module | None) -> contextlib.AbstractContextManager[None]:
    """Within it a discriminator that augments treats image i of every batch alike: real, made, and a penalty's."""
    if isinstance(network, Discriminator) and network.augment is not None:
        return network.augment.equal_draws()
    return contextlib.nullcontext()


def augment_measures(network: nn.Module) -> dict[str, Tensor]:
    """``augment/<name>`` -> scalars that the discriminator's augmentation wants in the log."""
    augment = network.augment if isinstance(network, Discriminator) else None
    return {} if augment is None else {f"augment/{name}": value for name, value in augment.measures().items()}


@contextlib.contextmanager
def in_mode(network: nn.Module | None, training: bool) -> Iterator[None]:
    """Within it the network is in training or evaluation mode; afterwards each of its modules is as before."""
    before = [(module, module.training) for module in network.modules()] if network is not None else []
    if network is not None:
        network.train(training)
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode


class Judge:
    """A discriminator as the terms see it: it carries condition and precision.

    Args:
        network: the discriminator.
        batch: where the condition is found.
        condition: column of the condition, images (B, C, H, W) or labels (B,), or None.
        precision: what the phase was entered with.
    """

    def __init__(self, network: nn.Module, batch: Batch, condition: str | None, precision: Precision) -> None:
        self._network = network
        self._condition = None if condition is None else batch[condition]
        self._precision = precision

    def __call__(self, images: Tensor) -> DiscriminatorOutput:
        """Judges images with shape (B, C, H, W) in the precision of terms, as penalties need it."""
        output: DiscriminatorOutput
        if self._condition is None:
            output = self._network(images)
        else:
            condition = self._condition
            output = self._network(images, condition.to(images.dtype) if condition.is_floating_point() else condition)
        return output

    def in_network_precision(self, images: Tensor) -> DiscriminatorOutput:
        """Judges images with shape (B, C, H, W) under the autocast that the phase was entered with."""
        with self._precision.networks():
            return self(images)

    def thunks(self, real: Callable[[], Tensor], fake: Callable[[], Tensor]) -> dict[str, Callable[[], Any]]:
        """The context names that are computed with it, from thunks of real and made images (B, C, H, W)."""
        judgements: dict[str, DiscriminatorOutput] = {}

        def judge(name: str, images: Callable[[], Tensor]) -> DiscriminatorOutput:
            if name not in judgements:
                judgements[name] = self.in_network_precision(images())
            return judgements[name]

        return {
            "discriminator": lambda: self,
            "logits_real": lambda: judge("real", real).logits,
            "features_real": lambda: judge("real", real).features,
            "logits_fake": lambda: judge("fake", fake).logits,
            "features_fake": lambda: judge("fake", fake).features,
        }


def shared_thunks(
    batch: Batch, step: int, target: Callable[[], Tensor], teachers: Mapping[str, nn.Module], precision: Precision
) -> dict[str, Callable[[], Any]]:
    """The context names that every phase has: batch columns, target, teachers, step."""

    def watch(teacher: nn.Module) -> Any:
        low, high = getattr(teacher, "input_range", (-1.0, 1.0))
        images = (target() + 1.0) * ((high - low) / 2.0) + low if (low, high) != (-1.0, 1.0) else target()
        with torch.no_grad(), precision.networks():
            return teacher(images)

    thunks: dict[str, Callable[[], Any]] = {
        "batch": lambda: batch,
        "target": target,
        "real": target,
        "step": lambda: step,
    }
    return thunks | {f"teacher.{name}": partial(watch, teacher) for name, teacher in teachers.items()}
