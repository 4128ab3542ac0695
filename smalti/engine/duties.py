"""What a step owes besides its updates: a validation, pictures. Done at once, or after a resumption, never twice."""

from collections.abc import Mapping
from typing import Any, NoReturn

from smalti.engine.chronicle import Chronicle
from smalti.engine.feed import Loader
from smalti.engine.keeper import Keeper
from smalti.engine.run_folder import RunFolder
from smalti.engine.runtime import Runtime
from smalti.engine.samples import write_samples
from smalti.engine.settings import EngineSettings
from smalti.engine.signals import Interrupted
from smalti.engine.state import TrainState
from smalti.engine.turn import Player
from smalti.engine.validation import Examiner
from smalti.explain import explain
from smalti.registry import UserError, suggest

VALIDATION, PICTURES = "validation", "pictures"


class Duties:
    """Knows what is due at a step, does it, and keeps what was measured.

    Args:
        examiner: measures and makes pictures.
        players: name -> player.
        loader: whose first images are pictured if there are no held-out ones.
        folder: where pictures and measurements go.
        state: where it is written what is due and what was measured.
        keeper: saves before anything is lost.
        chronicle: where measurements are told.
        settings: of the run.
        runtime: ranks.
    """

    def __init__(
        self,
        examiner: Examiner,
        players: Mapping[str, Player],
        loader: Loader,
        folder: RunFolder,
        state: TrainState,
        keeper: Keeper,
        chronicle: Chronicle,
        settings: EngineSettings,
        runtime: Runtime,
    ) -> None:
        self.examiner, self.players, self.loader, self.folder = examiner, players, loader, folder
        self.state, self.keeper, self.chronicle = state, keeper, chronicle
        self.settings, self.runtime = settings, runtime

    def owed(self, step: int) -> list[str]:
        """What is due at ``step`` besides its log line, in this order."""
        last, every = step == self.settings.max_steps, self.settings.sample_every
        measures = self.examiner.is_due(step) or (last and self.examiner.validation is not None)
        draws = step > 0 and every > 0 and (last or step % every == 0)
        return [name for name, wanted in ((VALIDATION, measures), (PICTURES, draws)) if wanted]

    def settle(self) -> bool:
        """Does what this step owes; whether a best was found. A signal leaves the rest for a resumption.

        Raises:
            UserError: if something cannot be done; the steps so far are saved.
        """
        best = False
        if self.state.due:
            self.keeper.collect()  # now, since later a rank may be gone
        for duty in list(self.state.due):
            try:
                with self.runtime.together():
                    best |= self._validate() if duty == VALIDATION else self._draw_samples()
            except Interrupted:
                break
            except Exception as error:
                self._rescue(duty, error)
            self.state.due.remove(duty)
            self.keeper.unsaved = self.state.step > 0
        return best

    def _rescue(self, duty: str, error: Exception) -> NoReturn:
        """Saves, waiting for no other rank, which may be gone; then says what could not be done."""
        if self.keeper.unsaved and self.runtime.is_main:
            self.keeper.write()
        told = str(error) if isinstance(error, UserError) else explain(error)
        model = f", the model in {self.folder.model}" if self.state.step == self.settings.max_steps else ""
        raise UserError(f"{duty} at step {self.state.step} failed: {told}{self.kept()}{model}") from error

    def kept(self) -> str:
        """The end of a message: what is safe."""
        return f"; the {self.state.step} steps so far are saved (--resume)" if self.state.step else ""

    def _validate(self) -> bool:
        """Measures and logs; returns whether this is the best so far."""
        values = self.examiner.measure({name: self.state.clock(name) for name in self.players})
        self.state.measured, self.state.measured_at = values, self.state.step
        if values:
            self.chronicle.log({f"val/{name}": value for name, value in values.items()})
        if self.state.step == 0:
            self.state.at_start = self._metrics(values)
            self.runtime.on_main(lambda: self.folder.write_evaluation(self.evaluation(0)))
        settings = self.examiner.settings
        if settings.monitor is None:
            return False
        if settings.monitor not in values:
            why = self.examiner.excuse(settings.monitor) or suggest(settings.monitor, values)
            raise UserError(f"validation.monitor={settings.monitor!r}: not measured{why}")
        if not settings.is_better(values[settings.monitor], self.state.best_value):
            return False
        self.state.best_value, self.state.best_step = values[settings.monitor], self.state.step
        self.state.best_measured = dict(values)
        return True

    def _draw_samples(self) -> bool:
        given, made = self.examiner.pictures(self.loader)
        self.runtime.on_main(lambda: write_samples(self.folder.samples / f"{self.state.step:08d}.png", given, made))
        return False

    def model_step(self) -> int:
        """The step whose weights ``model/`` holds: the best's, if that is wanted and its checkpoint can be read."""
        best = self.state.best_step
        if best in {None, self.state.step} or self.examiner.settings.monitor is None or self.settings.save == "last":
            return self.state.step
        trouble = self.runtime.on_main(lambda: self.keeper.trouble_with(best))
        if trouble:
            self.chronicle.warn([f"{trouble}; the model is of the last step {self.state.step} instead"])
            return self.state.step
        return best

    def evaluation(self, model_step: int) -> dict[str, Any]:
        """What ``evaluation.json`` holds: the numbers of the model that is saved, which is of ``model_step``."""
        measured = self.state.measured if model_step == self.state.step else self.state.best_measured
        metrics = {f"{name}_start": value for name, value in self.state.at_start.items()} | self._metrics(measured)
        objective = {name: value for name, value in measured.items() if name not in metrics}
        counts = {"step": self.state.step, "training_images": self.state.images, "seconds": self.state.seconds}
        if self.examiner.settings.monitor is not None:
            counts["model_step"] = model_step
        return {**metrics, **counts, "images": list(self.examiner.images), "objective": objective}

    def _metrics(self, measured: Mapping[str, float]) -> dict[str, float]:
        """What was ``measured``, the objective left out."""
        return {name: value for name, value in measured.items() if name.split("/")[0] not in self.players}
