"""The run folder: what a run leaves on the disk, and the only contract between engine and report."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from smalti.config import dump, read_text, read_yaml
from smalti.config.places import to_write
from smalti.engine.checkpoint import CheckpointFolder
from smalti.engine.lock import LOCK, FolderLock
from smalti.engine.optimizers import moved_rates
from smalti.engine.settings import FREE_TO_CHANGE, compare_recipes, shared_texts
from smalti.registry import UserError
from smalti.writing import UNFINISHED, flush_to_disk, to_json, write_whole


class RunFolder:
    """``recipe.yaml``, ``metrics.jsonl``, ``samples/``, ``checkpoints/``, ``model/`` and ``evaluation.json``.

    Args:
        path: the folder; made by ``claim``.
        companions: name -> text of files that lie in it, and beside the model.
    """

    def __init__(self, path: str | Path, companions: Mapping[str, str] | None = None) -> None:
        self.path, self.companions = to_write(path), dict(companions or {})
        self.recipe = self.path / "recipe.yaml"
        self.metrics = self.path / "metrics.jsonl"
        self.samples = self.path / "samples"
        self.checkpoints = self.path / "checkpoints"
        self.model = self.path / "model"
        self.evaluation = self.path / "evaluation.json"
        self.lock = FolderLock(self.path)

    def claim(
        self, recipe: Mapping[str, Any] | None, resume: bool, reschedule: bool = False, locations: Sequence[str] = ()
    ) -> str:
        """Makes the folder this run's own until ``release``, or continues the run that is in it.

        Args:
            recipe: resolved, or None.
            resume: whether to continue a run.
            reschedule: whether another ``max_steps`` may move the learning rates of that run.
            locations: places in the recipe that say where data lie; see ``moved``.

        Returns:
            What to tell the user of it, most often nothing.

        Raises:
            UserError: if another run goes on in it, if it holds something and ``resume`` is not set, if the run in it
                has another recipe, or if it cannot be written. What it holds is untouched then.
        """
        try:
            if self.path.exists() and not self.path.is_dir():
                raise UserError(f"{self.path} is a file: expected a folder")
            told = self.lock.take()
            self._check(recipe, resume, reschedule, locations)
            self._sweep()
        except OSError as error:
            self.release()
            raise UserError(f"cannot write to {self.path}: {error}") from error
        except UserError:
            self.release()
            raise
        return told

    def release(self) -> None:
        """Lets others have the folder."""
        self.lock.release()

    def write_recipe(self, recipe: Mapping[str, Any] | None) -> None:
        """Writes ``recipe.yaml``, if there is a recipe, and the companions."""
        if recipe is not None:
            write_whole(self.recipe, dump(dict(recipe)))
        for name, text in self.companions.items():
            write_whole(self.path / name, text)

    def moved(self, recipe: Mapping[str, Any] | None, locations: Sequence[str]) -> list[str]:
        """Where the stored recipe and ``recipe`` look for their data in different places: ``place: old -> new``."""
        if recipe is None or not self.recipe.is_file():
            return []
        stored = self.stored_recipe()
        fixed = compare_recipes(stored, recipe, (*FREE_TO_CHANGE, *shared_texts(stored, recipe, locations)))
        return [line for line in compare_recipes(stored, recipe) if line not in fixed]

    def _check(
        self, recipe: Mapping[str, Any] | None, resume: bool, reschedule: bool, locations: Sequence[str]
    ) -> None:
        holds_something = any(not _is_passing(entry) for entry in self.path.iterdir())
        if holds_something and not resume:
            raise UserError(
                f"{self.path} is not empty: resume it (--resume, in Python resume=True), or choose another folder"
            )
        if holds_something and not self.recipe.is_file() and not self.checkpoints.is_dir():
            raise UserError(f"{self.path} is not empty and holds no run to resume")
        if self.recipe.is_file() and recipe is not None:
            stored = self.stored_recipe()
            self._compare(stored, recipe, locations)
            if not reschedule:
                self._refuse_moved_rates(stored, recipe)

    def _sweep(self) -> None:
        """Clears what a crash cut short."""
        for entry in [*self.path.glob(f"{UNFINISHED}*"), *self.samples.glob(f"{UNFINISHED}*")]:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink(missing_ok=True)

    def _refuse_moved_rates(self, stored: Mapping[str, Any], recipe: Mapping[str, Any]) -> None:
        steps = CheckpointFolder(self.checkpoints).steps()
        moved = moved_rates(stored, recipe, steps[-1] if steps else 0)
        if moved:
            listed = "\n".join(f"  {line}" for line in moved)
            choice = "--reschedule accepts it; with optim.<phase>.lr_steps a schedule has a length of its own"
            raise UserError(f"engine.max_steps has changed, which stretches the schedules:\n{listed}\n{choice}")

    def _compare(self, stored: Mapping[str, Any], recipe: Mapping[str, Any], locations: Sequence[str]) -> None:
        differences = compare_recipes(stored, recipe)
        if set(differences) - set(self.moved(recipe, locations)):
            listed = "\n".join(f"  {line}" for line in differences)
            raise UserError(f"the run in {self.path} was started with another recipe:\n{listed}")

    def stored_recipe(self) -> dict[str, Any]:
        """The resolved recipe that the run was started with.

        Raises:
            UserError: if there is none, or it is no mapping.
        """
        try:
            found = read_yaml(read_text(self.recipe), str(self.recipe))
        except OSError as error:
            raise UserError(f"{self.recipe}: cannot be read: {error}") from error
        if not isinstance(found, dict):
            raise UserError(f"{self.recipe}: expected a mapping, found {type(found).__name__}")
        return found

    def save_model(self, model: nn.Module) -> bool:
        """Writes ``model/`` whole, if the model can save itself; False if it cannot."""
        save = getattr(model, "save_pretrained", None)
        if save is None:
            return False
        unfinished = self.path / ".unfinished-model"
        shutil.rmtree(unfinished, ignore_errors=True)
        save(unfinished)
        for name, text in self.companions.items():
            (unfinished / name).write_text(text, encoding="utf-8")
        for entry in unfinished.iterdir():
            flush_to_disk(entry)
        shutil.rmtree(self.model, ignore_errors=True)
        unfinished.rename(self.model)
        return True

    def write_evaluation(self, values: Mapping[str, Any]) -> None:
        """Writes ``evaluation.json``."""
        write_whole(self.evaluation, to_json(values) + "\n")


def _is_passing(entry: Path) -> bool:
    return entry.name == LOCK or entry.name.startswith(UNFINISHED)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within, a disk that takes no more is the user's to mend.

    Raises:
        UserError: in place of an OSError, naming the folder and what is safe.
    """
    try:
        yield
    except OSError as error:
        safe = "checkpoints that were complete are intact"
        raise UserError(f"the run in {path} cannot go on: {error}; {safe}") from error
