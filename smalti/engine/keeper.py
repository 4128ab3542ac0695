"""A run on the disk: what its state is made of, saved whole and put back."""

from collections.abc import Mapping
from typing import Any

from smalti.engine.checkpoint import Checkpoint, CheckpointFolder
from smalti.engine.chronicle import Chronicle
from smalti.engine.ema import EMA
from smalti.engine.logging import mean_over_ranks
from smalti.engine.runtime import Runtime
from smalti.engine.state import TrainState
from smalti.engine.turn import Player
from smalti.objectives.phases import Phase
from smalti.registry import UserError


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
        self.state.lazy = mean_over_ranks(self.runtime.gather(self.chronicle.lazy.numbers()))

    def write(self) -> None:
        """Writes a checkpoint of what was collected; on the first rank, which waits for no other.

        Raises:
            UserError: if it cannot be written.
        """
        networks = {name: phase.state_dict() for name, phase in self.phases.items()}
        state: dict[str, Any] = {
            "train": self.state.as_dict(),
            "optimizers": {name: player.optimizer.state_dict() for name, player in self.players.items()},
        }
        if self.ema is not None:
            networks["ema"] = self.ema.state_dict()
            state["ema_updates"] = self.ema.updates.item()
        checkpoint = Checkpoint(step=self.state.step, networks=networks, state=state)
        self.checkpoints.save(checkpoint, self.state.best_step)

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

    def _restore(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.state
        try:
            for name, phase in self.phases.items():
                phase.load_state_dict(dict(checkpoint.networks[name]))
            for name, player in self.players.items():
                player.optimizer.load_state_dict(state["optimizers"][name])
            if self.ema is not None:
                self.ema.load_state_dict(checkpoint.networks["ema"], state["ema_updates"])
            self.state.restore(state["train"])
            self.chronicle.lazy.restore(self.state.lazy)
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise UserError(f"checkpoint {checkpoint.step} does not fit this recipe: {error}") from error
        self.state.share_among(self.runtime.world_size)
