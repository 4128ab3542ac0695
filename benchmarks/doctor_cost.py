"""What the doctor costs: blocks of steps with it and without it, in turn, in one process."""

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smalti.assembly.assemble import assemble
from smalti.assembly.recipe import load_recipe
from smalti.engine.trainer import Trainer

BLOCKS = 60


@dataclass(frozen=True)
class Cost:
    """Seconds of processor time of a step, medians over blocks.

    Args:
        recipe: which.
        log_every: steps between two log lines, which is when most of it is done.
        without: seconds of a step without the doctor.
        share: median over pairs of blocks of what it adds, as a share of a step.
    """

    recipe: str
    log_every: int
    without: float
    share: float

    def line(self) -> str:
        """In words."""
        name = Path(self.recipe).stem
        return (
            f"cost in {name}, log_every {self.log_every}: {self.share:+.2%} of a step of {1000 * self.without:.1f} ms "
            f"(median of {BLOCKS} pairs of blocks of {self.log_every} steps)"
        )


def cost_of(recipe: str) -> Cost:
    """Trains two runs of a recipe in turn, one with a doctor and one without; compares pairs of blocks."""
    with tempfile.TemporaryDirectory() as folder:
        read = load_recipe(recipe, ["engine.sample_every=0", "engine.checkpoint_every=0", "engine.max_steps=100000"])
        trainers = [assemble(read, Path(folder) / name, quiet=True) for name in ("with", "without")]
        for trainer in trainers:
            trainer.folder.path.mkdir()
            trainer._prepare_to_train()
        silence(trainers[1])
        every = trainers[0].settings.log_every
        pairs = []
        for block in range(BLOCKS + 2):
            order = trainers if block % 2 == 0 else trainers[::-1]
            seconds = {id(trainer): _block(trainer, every) for trainer in order}
            if block >= 2:  # caches are warm
                pairs.append((seconds[id(trainers[0])], seconds[id(trainers[1])]))
        for trainer in trainers:
            trainer._close()
    share = statistics.median(one / other - 1.0 for one, other in pairs)
    return Cost(recipe, every, statistics.median(other for _, other in pairs) / every, share)


def _block(trainer: Trainer, steps: int) -> float:
    """Processor seconds of so many steps, the last of which is logged."""
    began = time.process_time()
    for step in range(steps):
        last = step == steps - 1
        trainer._fetch()
        turns = trainer.run_cycle(measure=last)
        trainer._read_health()
        if last:
            trainer.chronicle.tell(turns)
    return time.process_time() - began


def silence(trainer: Trainer) -> None:
    """Takes the doctor out of a trainer: nothing is noted, measured, looked at."""
    doctor: Any = trainer.doctor
    doctor.note = doctor.drawn = doctor.averaged = doctor.look = lambda *arguments: None
    doctor.numbers = doctor.held_out = lambda *arguments: {}
    doctor.teachers = type("Deaf", (), {"looking": False})()
    for player in trainer.players.values():
        player._signals = lambda *arguments: {}  # type: ignore[method-assign]
