"""Validation: the same objective and the recipe's metrics on held-out images; defines the best checkpoint."""

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from smalti.engine.ema import EMA
from smalti.engine.logging import to_host
from smalti.engine.randomness import forked
from smalti.engine.runtime import Runtime
from smalti.engine.samples import Paint, sample_images
from smalti.engine.settings import GENERATOR, EngineSettings, ValidationSettings
from smalti.engine.signals import Interrupted, StopSignal
from smalti.engine.turn import Player
from smalti.objectives.weight import Clock
from smalti.outputs import Batch, batch_size
from smalti.registry import UserError

log = logging.getLogger("smalti")

OBJECTIVE = "objective"
_NONE, _SOME, _STOP, _FAILED = range(4)


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Held-out images and what is measured on them.

    Args:
        batches: gives every held-out image once, or this rank's share of them; called anew for each validation.
        settings: when, and what is best.
        measure: model -> flat metrics, on the same images; None: the objective alone.
        images: names of the held-out images, for ``evaluation.json``.
        multiple: for the objective and for pictures, images are cropped to multiples of this (the model's factor).
        smallest: images with a side below this after the crop are left out of both: the discriminator or a network of
            a term cannot look at them. Metrics see every image whole.
        left_out: name of a metric -> how many images it could not take, and why, noted by ``measure``.
    """

    batches: Callable[[], Iterable[Batch]]
    settings: ValidationSettings = field(default_factory=ValidationSettings)
    measure: Callable[[nn.Module], Mapping[str, Any]] | None = None
    images: Sequence[str] = ()
    multiple: int = 1
    smallest: int = 1
    left_out: dict[str, str] = field(default_factory=dict)

    def cropped(self, note: Callable[[int], None] = lambda count: None) -> Iterator[Batch]:
        """The batches, every column of images cropped to a multiple the model takes; too small ones left out.

        A batch without images is left as it is.

        Args:
            note: told how many images were left out, whenever some were.
        """
        for batch in self.batches():
            if "image" not in batch:
                yield batch
                continue
            size = batch["image"].shape[-2:]
            cropped = {name: self._crop(value, size) for name, value in batch.items()}
            if min(cropped["image"].shape[-2:]) >= self.smallest:
                yield cropped
            else:
                note(batch_size(cropped))

    def note_small(self, count: int, seen: int) -> None:
        """Says of the objective that ``count`` images were left out of it, beside those that were ``seen``."""
        if count:
            size = f"{self.smallest} x {self.smallest} pixels"
            crop = f" once cropped to multiples of {self.multiple}" if self.multiple > 1 else ""
            self.left_out[OBJECTIVE] = f"{count} of {count + seen} images are left out, it needs at least {size}{crop}"

    def _crop(self, value: Any, size: Sequence[int]) -> Any:
        if not isinstance(value, Tensor) or value.ndim != 4 or value.shape[-2:] != size:
            return value  # tokens and latents have the size of their grid
        height, width = (size - size % self.multiple for size in value.shape[-2:])
        return value[..., :height, :width].contiguous()


class Examiner:
    """Measures and pictures the model as it would be used: averaged weights, evaluation mode, random numbers apart.

    Args:
        validation: what on; None: nothing is measured.
        players: name -> phase and how its batches are prepared.
        model: the network.
        ema: its averaged weights, or None.
        settings: of the run.
        runtime: device, ranks, precision.
        signal: interrupts a measurement, which is then as if it had not begun.
        paint: makes pictures.
    """

    def __init__(
        self,
        validation: Validation | None,
        players: Mapping[str, Player],
        model: nn.Module,
        ema: EMA | None,
        settings: EngineSettings,
        runtime: Runtime,
        signal: StopSignal,
        paint: Paint = sample_images,
    ) -> None:
        self.signal, self.paint = signal, paint
        self.validation, self.players, self.model = validation, players, model
        self.ema, self.run, self.runtime = ema, settings, runtime
        self.settings = validation.settings if validation else ValidationSettings()
        self.images = validation.images if validation else ()
        self._pictured: Batch | None = None
        self._told: set[str] = set()

    def is_due(self, step: int) -> bool:
        """Whether a validation falls on ``step``."""
        if self.validation is None:
            return False
        if step == 0:
            return self.settings.at_start
        return self.settings.every > 0 and step % self.settings.every == 0

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within, the model has its averaged weights if there are any, and random numbers do not count."""
        weights = self.ema.applied() if self.ema is not None else nullcontext()
        with forked(self.run.seed, "evaluation"), weights:
            yield

    def measure(self, clocks: Mapping[str, Clock]) -> dict[str, float]:
        """Means of the objective over the held-out images as ``<phase>/<name>``, and the metrics by their names.

        Ranks may have shares of the images; a metric is expected to add up its ranks by itself, as torchmetrics do.

        Args:
            clocks: phase -> when it is; phases that are not active are left out.

        Raises:
            Interrupted: on all ranks, if a signal came to one of them while it measured.
            UserError: if the held-out images of a rank cannot be read.
        """
        if self.validation is None:
            return {}
        with self.averaged(), torch.no_grad(), self._evaluation_mode():
            values = self._objective(self.validation, clocks)
            if self.validation.measure is not None:
                # Of several ranks one would leave the others waiting in a metric's sum over all of them.
                with self.signal.interruptible() if self.runtime.world_size == 1 else nullcontext():
                    values |= self.validation.measure(self.model)
            self._tell(self.validation.left_out)
        return self.runtime.gather(values)[0]

    @contextmanager
    def _evaluation_mode(self) -> Iterator[None]:
        modules = [*(player.phase for player in self.players.values()), self.model]
        for module in modules:
            module.eval()
        try:
            yield
        finally:
            for module in modules:
                module.train()

    def _objective(self, validation: Validation, clocks: Mapping[str, Clock]) -> dict[str, float]:
        active = [name for name, player in self.players.items() if player.phase.is_active(clocks[name])]
        active.sort(key=lambda name: name != GENERATOR)  # its judged images serve the others
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        seen = 0
        small: list[int] = []
        for batch, size in self._in_step(validation.cropped(small.append) if active else iter(())):
            seen += size
            for name, value in self._pass(active, clocks, batch).items():
                if size:
                    sums[name] = sums.get(name, 0.0) + value * size
                    counts[name] = counts.get(name, 0) + size
        gathered = self.runtime.gather((sums, counts, seen, sum(small)))
        validation.note_small(sum(entry[3] for entry in gathered), sum(entry[2] for entry in gathered))
        everywhere = [entry[:2] for entry in gathered]
        names = {name: None for found, _ in everywhere for name in found}
        return {
            name: sum(found.get(name, 0.0) for found, _ in everywhere)
            / sum(sizes.get(name, 0) for _, sizes in everywhere)
            for name in names
        }

    def _tell(self, left_out: Mapping[str, str]) -> None:
        """One line in the log for everybody who could not take some images, once in a run."""
        for name, reason in left_out.items():
            if name not in self._told and self.runtime.is_main:
                log.warning("validation: %s: %s", name, reason)
            self._told.add(name)

    def excuse(self, value: str) -> str:
        """Why a value was not measured, as the end of a sentence; empty if nothing is known."""
        reasons = self.validation.left_out if self.validation is not None else {}
        owner = OBJECTIVE if value.split("/", maxsplit=1)[0] in self.players else value
        near = [name for name in reasons if owner == name or owner.startswith(f"{name}_")]
        return f": {reasons[max(near, key=len)]}" if near else ""

    def _in_step(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, int]]:
        """Batches with their sizes, equally many on all ranks: one that has no more repeats one, with size 0.

        A term may average over ranks, and would wait for ever for one that has stopped; so all stop together.
        """
        batch, vote, trouble = self._next(batches)
        spare = self.runtime.on_main(functools.partial(_same, batch))
        while agreed := self.runtime.largest(vote):
            if agreed == _FAILED:
                raise trouble or UserError("another process could not read its held-out images")
            if agreed == _STOP:
                raise Interrupted
            yield (spare, 0) if batch is None else (batch, batch_size(batch))
            batch, vote, trouble = self._next(batches)

    def _next(self, batches: Iterator[Batch]) -> tuple[Batch | None, int, Exception | None]:
        try:
            with self.signal.interruptible():
                batch = next(batches, None)
        except Interrupted:
            return None, _STOP, None
        except Exception as error:
            return None, _FAILED, error
        return batch, _NONE if batch is None else _SOME, None

    def _pass(self, active: Sequence[str], clocks: Mapping[str, Clock], batch: Batch) -> dict[str, float]:
        values: dict[str, Tensor | float] = {}
        fake = None
        for name in active:
            ready = self.players[name].prepare(batch, Clock())  # the same noise at every validation
            with self.runtime.autocast():
                _, report = self.players[name].phase(ready, clocks[name], fake=fake)
            fake = report.fake if fake is None else fake
            values |= {f"{name}/{key}": value for key, value in report.flatten().items()}
        return to_host(values)

    def pictures(self, loader: Any) -> tuple[Tensor | None, Tensor]:
        """Held-out images, or the first of ``loader``, and what is made of them, each with shape (N, C, H, W).

        The former are None for a model that makes images from noise, or of tokens.

        Raises:
            Interrupted: on all ranks, if a signal came to one of them while it waited for the images.
        """
        if self._pictured is None:
            with suppress(Interrupted), self.signal.interruptible():
                source = self.validation.cropped() if self.validation is not None else loader.batches()
                found = next(iter(source), None)
                self._pictured = next(iter(loader.batches())) if found is None else found
        pictured = self._pictured
        if self.runtime.any(pictured is None) or pictured is None:
            raise Interrupted
        with self.averaged():
            batch = self.players[GENERATOR].prepare(pictured, Clock())
            return self.paint(self.model, batch, self.run.samples)


def _same(batch: Batch | None) -> Any:
    return batch
