"""Validation: the same objective and the recipe's metrics on held-out images; defines the best checkpoint."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from smalti.engine.ema import EMA
from smalti.engine.logging import to_host
from smalti.engine.randomness import forked
from smalti.engine.runtime import Runtime
from smalti.engine.samples import sample_images
from smalti.engine.settings import GENERATOR, EngineSettings, ValidationSettings
from smalti.engine.turn import Player
from smalti.objectives.weight import Clock
from smalti.outputs import Batch


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Held-out images and what is measured on them.

    Args:
        batches: gives every held-out image once, or this rank's share of them; called anew for each validation.
        settings: when, and what is best.
        measure: model -> flat metrics, on the same images; None: the objective alone.
        images: names of the held-out images, for ``evaluation.json``.
        multiple: for the objective and for pictures, images are cropped to multiples of this (the model's factor).
        smallest: images with a side below this after the crop are left out of both: the discriminator cannot judge
            them. Metrics see every image whole.
    """

    batches: Callable[[], Iterable[Batch]]
    settings: ValidationSettings = field(default_factory=ValidationSettings)
    measure: Callable[[nn.Module], Mapping[str, Any]] | None = None
    images: Sequence[str] = ()
    multiple: int = 1
    smallest: int = 1

    def cropped(self) -> Iterator[Batch]:
        """The batches, every column of images cropped to a multiple the model takes; too small ones left out."""
        for batch in self.batches():
            cropped = {name: self._crop(value) for name, value in batch.items()}
            if min(cropped["image"].shape[-2:]) >= self.smallest:
                yield cropped

    def _crop(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.ndim != 4:
            return value
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
    """

    def __init__(
        self,
        validation: Validation | None,
        players: Mapping[str, Player],
        model: nn.Module,
        ema: EMA | None,
        settings: EngineSettings,
        runtime: Runtime,
    ) -> None:
        self.validation, self.players, self.model = validation, players, model
        self.ema, self.run, self.runtime = ema, settings, runtime
        self.settings = validation.settings if validation else ValidationSettings()
        self.images = validation.images if validation else ()
        self.values: dict[str, float] = {}
        self.measured_at: int | None = None
        self._pictured: Batch | None = None

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
        """
        if self.validation is None:
            return {}
        with self.averaged(), torch.no_grad(), self._evaluation_mode():
            values = self._objective(self.validation, clocks)
            if self.validation.measure is not None:
                values |= self.validation.measure(self.model)
        self.values = self.runtime.gather(values)[0]
        self.measured_at = clocks[GENERATOR].step
        return self.values

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
        for batch, size in self._in_step(validation.cropped() if active else iter(())):
            for name, value in self._pass(active, clocks, batch).items():
                if size:
                    sums[name] = sums.get(name, 0.0) + value * size
                    counts[name] = counts.get(name, 0) + size
        everywhere = self.runtime.gather((sums, counts))
        names = {name: None for found, _ in everywhere for name in found}
        return {
            name: sum(found.get(name, 0.0) for found, _ in everywhere)
            / sum(sizes.get(name, 0) for _, sizes in everywhere)
            for name in names
        }

    def _in_step(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, int]]:
        """Batches with their sizes, equally many on all ranks: one that has no more repeats one, with size 0.

        A term may average over ranks, and would wait for ever for one that has stopped.
        """
        batch = next(batches, None)
        spare = self.runtime.on_main(functools.partial(_same, batch))
        while self.runtime.any(batch is not None):
            yield (spare, 0) if batch is None else (batch, len(batch["image"]))
            batch = next(batches, None)

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

        The former are None for a model that makes images from noise.
        """
        if self._pictured is None:
            source = self.validation.cropped() if self.validation is not None else loader.batches()
            found = next(iter(source), None)
            self._pictured = next(iter(loader.batches())) if found is None else found
        with self.averaged():
            batch = self.players[GENERATOR].prepare(self._pictured, Clock())
            return sample_images(self.model, batch, self.run.samples)


def _same(batch: Batch | None) -> Any:
    return batch
