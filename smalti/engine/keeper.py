"""A run on the disk: what its state is made of, saved whole and put back."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from smalti.engine.checkpoint import Checkpoint, CheckpointFolder
from smalti.engine.chronicle import Chronicle
from smalti.engine.ema import EMA
from smalti.engine.logging import mean_over_ranks
from smalti.engine.runtime import Runtime
from smalti.engine.state import TrainState
from smalti.engine.turn import Player
from smalti.objectives.phases import Phase
from smalti.registry import UserError

EMA_NAME = "ema"
TRAIN, OPTIMIZERS = "train", "optimizers"  # what every state of a checkpoint has
DATA = "data"  # since checkpoints know what the run was trained on
DOCTOR = "doctor"  # since there is one


class Keeper:
    """Saves a run to its checkpoints, and puts it back from one.

    Args:
        checkpoints: where.
        state: counters of the run.
        phases: name -> phase, whose networks are saved.
        players: name -> player, whose optimizers are saved.
        ema: averaged weights, or None.
        chronicle: whose time and lazy terms go with the state.
        runtime: ranks.
    """

    def __init__(
        self,
        checkpoints: CheckpointFolder,
        state: TrainState,
        phases: Mapping[str, Phase],
        players: Mapping[str, Player],
        ema: EMA | None,
        chronicle: Chronicle,
        runtime: Runtime,
    ) -> None:
        self.checkpoints, self.state, self.phases, self.players = checkpoints, state, phases, players
        self.ema, self.chronicle, self.runtime = ema, chronicle, runtime
        self.well = True  # whether what was collected is worth going back to
        self.doctor: Mapping[str, Any] = {}  # what it knows, as collected
        self.data: Mapping[str, Any] = {}  # place of a source -> its fingerprint, as stored
        self.unsaved = False  # whether there is anything that the newest checkpoint does not have

    def save(self) -> None:
        """Writes a checkpoint of the present step, on all ranks at once.

        Raises:
            UserError: if it cannot be written.
        """
        self.collect()
        self.runtime.on_main(self.write)
        self.unsaved = False

    def collect(self) -> None:
        """Brings from all ranks what the first one alone does not have; after this it can ``write`` by itself."""
        self.chronicle.count_time()
        self.well = self.is_well()
        self.state.failing = dict(self.chronicle.health.consecutive)
        self.state.lazy = mean_over_ranks(self.runtime.gather(self.chronicle.lazy.numbers()))
        self.state.windows = self.runtime.gather(self.chronicle.plateaus.pending())
        self.doctor = self.chronicle.doctor.as_dict(self.runtime.gather(self.chronicle.doctor.pending()))

    def write(self) -> None:
        """Writes a checkpoint of what was collected; on the first rank, which waits for no other.

        Raises:
            UserError: if it cannot be written.
        """
        self.state.log_lines = self.chronicle.journal.flush()
        networks = {name: phase.state_dict() for name, phase in self.phases.items()}
        state: dict[str, Any] = {
            TRAIN: self.state.as_dict(),
            OPTIMIZERS: {name: player.optimizer.state_dict() for name, player in self.players.items()},
            DATA: dict(self.data),
            DOCTOR: self.doctor,
        }
        if self.ema is not None:
            networks[EMA_NAME] = self.ema.state_dict()
            state["ema_updates"] = self.ema.updates.item()
        self.checkpoints.save(
            Checkpoint(
                step=self.state.step,
                networks=networks,
                state=state,
                best_step=self.state.best_step,
                good=self.well,
            )
        )

    def is_well(self, patience: int = 1) -> bool:
        """Whether fewer than ``patience`` updates of any phase failed last, and weights and held-out losses are finite.

        A single update that failed left the weights as they were.
        """
        losses = [value for name, value in self.state.measured.items() if name.endswith("/total")]
        return (
            all(count < patience for count in self.chronicle.health.consecutive.values())
            and all(math.isfinite(value) for value in losses)
            and self._weights_are_finite()
        )

    def _weights_are_finite(self) -> bool:
        weights = [tensor for phase in self.phases.values() for tensor in phase.state_dict().values()]
        weights += list(self.ema.state_dict().values()) if self.ema is not None else []
        weights = [tensor for tensor in weights if tensor.is_floating_point() and tensor.numel()]
        flags = [torch.isfinite(tensor).all() for tensor in weights]
        return not flags or bool(torch.stack(flags).all())

    def restore_latest(self) -> int | None:
        """Puts the run back to its newest readable checkpoint; the step, None if there is none.

        Raises:
            UserError: if it belongs to another recipe, or none can be read.
        """
        self.runtime.on_main(self.checkpoints.sweep)
        step = self.runtime.on_main(self.checkpoints.find_latest)
        if step is not None:
            self._restore(self.checkpoints.load(step))
        return step

    def trouble_with(self, step: int | None) -> str:
        """Why the checkpoint of ``step`` cannot be read, empty if it can."""
        try:
            self.checkpoints.load(-1 if step is None else step)
        except UserError as error:
            return str(error)
        return ""

    @contextmanager
    def weights_of(self, step: int) -> Iterator[None]:
        """Within, networks and averages are those of the checkpoint of ``step``.

        Raises:
            UserError: if it cannot be read.
        """
        if step == self.state.step:
            yield
            return
        here = {name: _copy(phase.state_dict()) for name, phase in self.phases.items()}
        if self.ema is not None:
            here[EMA_NAME] = _copy(self.ema.state_dict())
        self._load_networks(self.checkpoints.load(step).networks)
        try:
            yield
        finally:
            self._load_networks(here)

    def _load_networks(self, networks: Mapping[str, Mapping[str, Tensor]]) -> None:
        for name, phase in self.phases.items():
            phase.load_state_dict(dict(networks[name]))
        if self.ema is not None:
            self.ema.load_state_dict(networks[EMA_NAME], self.ema.updates.item())

    def _restore(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.state
        try:
            self._load_networks(checkpoint.networks)
            for name, player in self.players.items():
                player.optimizer.load_state_dict(state[OPTIMIZERS][name])
            if self.ema is not None:
                self.ema.updates.fill_(state["ema_updates"])
            self.state.restore(state[TRAIN])
            self.data = state.get(DATA, {})
            self.chronicle.lazy.restore(self.state.lazy)
            self.chronicle.health.consecutive = dict(self.state.failing)
            self.chronicle.doctor.restore(state.get(DOCTOR, {}))
            if len(self.state.windows) == self.runtime.world_size:
                self.chronicle.plateaus.restore(self.state.windows[self.runtime.rank])
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise UserError(f"checkpoint {checkpoint.step} does not fit this recipe: {error}") from error
        self.state.share_among(self.runtime.world_size)


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.items()}
