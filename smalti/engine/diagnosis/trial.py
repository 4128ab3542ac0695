"""A trial: the first steps of a recipe, for what the doctor says of them. Its schedules are those of the whole run."""

from collections.abc import Iterator

from smalti.diagnosis import Diagnosis
from smalti.engine.decoration import decoration
from smalti.engine.run_folder import writing
from smalti.engine.trainer import Trainer
from smalti.registry import UserError

LOOKS = 20  # log steps of a trial


def settings_of(steps: int) -> list[str]:
    """What is set on a recipe for a trial; none of it changes the weights."""
    quiet = ("sample_every=0", "checkpoint_every=0", "tracker=none", f"log_every={max(1, steps // LOOKS)}")
    return [f"engine.{one}" for one in quiet]


def trial(trainer: Trainer, steps: int) -> Diagnosis:
    """Trains ``steps`` steps in a new folder; no checkpoint, no model, no measurement on held-out images.

    Args:
        trainer: of the recipe.
        steps: at most; a shorter run is tried whole.

    Returns:
        What the doctor found up to there.

    Raises:
        UserError: if the data cannot be read. That the run diverges is a finding.
    """
    steps = min(steps, trainer.settings.max_steps)
    found = trainer.doctor.diagnosis
    runtime = trainer.runtime
    with decoration(), writing(trainer.folder.path), runtime.together(), runtime.repeatable(), trainer.signal:
        try:
            trainer.runtime.on_main(lambda: trainer.folder.claim(None, resume=False))
            trainer._prepare_to_train()
            while trainer.state.step < steps and trainer._fetch():
                _step(trainer, steps)
        except UserError:
            if not found.findings:
                raise
        finally:
            trainer._close()
            trainer.folder.release()
    return found


def _step(trainer: Trainer, steps: int) -> None:
    tells = trainer._is_log_step(trainer.state.step + 1) or trainer.state.step + 1 == steps
    turns = trainer.run_cycle(measure=tells)
    if tells or trainer.runtime.reads_are_free:
        trainer._read_health()
    if tells:
        trainer.chronicle.tell(turns)


def left_out(trainer: Trainer, steps: int) -> Iterator[str]:
    """What a trial of so many steps does not see, in words."""
    for name, phase in trainer.phases.items():
        for term in phase.terms:
            if isinstance(term.start, int) and term.start >= steps:
                yield f"objective.{name}.{term.name} starts at step {term.start:,}"
    yield "held-out images are not measured (overfit)"
