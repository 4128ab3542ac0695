"""Checkpoints that are there whole or not at all.

A checkpoint is a folder: ``<name>.safetensors`` per network, ``state.pt`` for counters and optimizer moments, and
``manifest.json`` with the SHA-256 of each file. It is written beside its place, flushed to the disk and renamed, so a
crash leaves an unfinished folder that is swept up, never a damaged checkpoint. Nothing is deleted before its successor
is complete.
"""

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from smalti.registry import UserError
from smalti.writing import UNFINISHED, flush_to_disk, to_json, whole

FORMAT = 1
STATE, MANIFEST, NETWORK = "state.pt", "manifest.json", ".safetensors"
REPLACED, DAMAGED = ".replaced-", "damaged-"
PARSE_ERRORS = (json.JSONDecodeError, UnicodeDecodeError, pickle.UnpicklingError, SafetensorError)
WRITE_ERRORS = (OSError, SafetensorError, RuntimeError)  # a full disk is all three, depending on who was writing


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a checkpoint holds.

    Args:
        step: generator updates completed.
        networks: name -> state dict.
        state: plain values and tensors: counters, optimizer moments.
        best_step: step of the best checkpoint when this one was written, or None.
        good: whether the run was well: no update had just failed, and all weights and held-out numbers were finite.
    """

    step: int
    networks: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]
    best_step: int | None = None
    good: bool = True


class CheckpointFolder:
    """The checkpoints of one run, by step.

    Args:
        path: the folder; made when the first checkpoint is saved.
        keep: how many of the newest are kept.
        report: told of every damaged checkpoint.
        parts: mappings that every state has.
    """

    def __init__(
        self,
        path: Path,
        keep: int = 3,
        report: Callable[[str], None] = lambda message: None,
        parts: Sequence[str] = (),
    ) -> None:
        self.path, self.keep, self.report, self.parts = path, keep, report, parts

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there, ascending; not all of them need be readable."""
        if not self.path.is_dir():
            return []
        return sorted(int(entry.name) for entry in self.path.iterdir() if entry.is_dir() and _is_step(entry.name))

    def good_steps(self) -> list[int]:
        """Steps of the checkpoints of a run that was well, ascending; of one that cannot be read nothing is known."""
        return [step for step in self.steps() if self._is_good(step)]

    def _is_good(self, step: int) -> bool:
        try:
            return self._manifest(step).get("good", True) is True
        except UserError:
            return False

    def folder(self, step: int) -> Path:
        """Where the checkpoint of ``step`` is or would be."""
        return self.path / f"{step:08d}"

    def save(self, checkpoint: Checkpoint) -> Path:
        """Writes a checkpoint, then deletes those that are neither among the newest nor the best.

        What is not good is kept only as long as nothing newer is there, and pushes no good one out.

        Raises:
            UserError: if it cannot be written (a full disk); all earlier checkpoints are untouched.
        """
        unfinished = self.path / f"{UNFINISHED}{checkpoint.step:08d}"
        try:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            self._write(unfinished, checkpoint)
            final = self._move_in(unfinished, checkpoint.step)
        except WRITE_ERRORS as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise UserError(
                f"cannot write checkpoint {checkpoint.step} to {self.path}: {error}; {self._left()}"
            ) from error
        kept = {*self.good_steps()[-self.keep :], checkpoint.step, checkpoint.best_step}
        for step in self.steps():
            if step not in kept:
                shutil.rmtree(self.folder(step), ignore_errors=True)
        return final

    def _write(self, folder: Path, checkpoint: Checkpoint) -> None:
        for name, tensors in checkpoint.networks.items():
            with whole(_network(folder, name)) as path:
                save_file({key: value.detach().cpu().contiguous() for key, value in _unshared(tensors)}, path)
        torch.save(dict(checkpoint.state), folder / STATE)
        files = sorted(entry.name for entry in folder.iterdir())
        manifest = {
            "format": FORMAT,
            "step": checkpoint.step,
            "best_step": checkpoint.best_step,
            "good": checkpoint.good,
            "sha256": {name: sha256(folder / name) for name in files},
        }
        (folder / MANIFEST).write_text(to_json(manifest) + "\n", encoding="utf-8")
        for entry in folder.iterdir():
            flush_to_disk(entry)
        flush_to_disk(folder)

    def _move_in(self, unfinished: Path, step: int) -> Path:
        final = self.folder(step)
        replaced = self.path / f"{REPLACED}{step:08d}"
        if final.exists():
            final.rename(replaced)
        unfinished.rename(final)
        flush_to_disk(self.path)
        shutil.rmtree(replaced, ignore_errors=True)
        return final

    def _left(self) -> str:
        steps = self.steps()
        return (
            f"the checkpoints of steps {', '.join(map(str, steps))} are intact" if steps else "there is no earlier one"
        )

    def sweep(self) -> None:
        """Clears what a crash left behind: unfinished folders go, a checkpoint on its way to be replaced comes back."""
        if not self.path.is_dir():
            return
        for entry in list(self.path.iterdir()):
            if entry.name.startswith(UNFINISHED):
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name.startswith(REPLACED):
                place = self.path / entry.name.removeprefix(REPLACED)
                if place.exists():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.rename(place)

    def load(self, step: int) -> Checkpoint:
        """Reads one checkpoint and checks every file against the manifest.

        Raises:
            UserError: if a file is missing or not as it was written.
        """
        folder, manifest = self.folder(step), self._manifest(step)
        try:
            for name, expected in manifest["sha256"].items():
                if sha256(folder / name) != expected:
                    raise UserError(f"checkpoint {folder} is damaged: {name} is not as it was written")
            names = [name.removesuffix(NETWORK) for name in manifest["sha256"] if name.endswith(NETWORK)]
            networks = {name: load_file(_network(folder, name)) for name in names}
            state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
        except (OSError, LookupError, TypeError, AttributeError, RuntimeError, *PARSE_ERRORS) as error:
            raise UserError(f"checkpoint {folder} is damaged: {type(error).__name__}: {_first_line(error)}") from error
        if not isinstance(state, dict) or not all(isinstance(state.get(name), dict) for name in self.parts):
            raise UserError(f"checkpoint {folder} is damaged: {STATE} lacks {' or '.join(self.parts)}")
        return Checkpoint(
            step=step,
            networks=networks,
            state=state,
            best_step=manifest.get("best_step"),
            good=manifest.get("good", True) is True,
        )

    def _manifest(self, step: int) -> dict[str, Any]:
        """What a checkpoint says of itself, ``sha256`` a mapping of the names of its files.

        Raises:
            UserError: if it cannot be read, or is not what this class writes.
        """
        path = self.folder(step) / MANIFEST
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"checkpoint {path.parent} is damaged: {MANIFEST}: {_first_line(error)}") from error
        wrong = _objection(manifest, step)
        if wrong:
            raise UserError(f"checkpoint {path.parent} is damaged: {MANIFEST}: {wrong}")
        return dict(manifest)

    def find_latest(self) -> int | None:
        """The newest step that can be read; damaged ones on the way are reported and set aside. None: none was saved.

        Raises:
            UserError: if there are checkpoints and not one can be read.
        """
        steps = self.steps()
        problems = []
        for step in reversed(steps):
            try:
                self.load(step)
            except UserError as error:
                problems.append(str(error))
                self.report(str(error))
                continue
            self._set_aside([other for other in steps if other > step])
            return step
        if problems:
            raise UserError("no checkpoint can be read: " + "; ".join(problems))
        return None

    def _set_aside(self, steps: list[int]) -> None:
        # A damaged checkpoint must not count among the newest, or it would push out good ones.
        for step in steps:
            place = self.path / f"{DAMAGED}{step:08d}"
            shutil.rmtree(place, ignore_errors=True)
            self.folder(step).rename(place)


def _is_step(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _objection(manifest: Any, step: int) -> str:
    """What is wrong with the manifest of ``step``, empty if nothing is."""
    if not isinstance(manifest, dict):
        return f"a {type(manifest).__name__}, expected a mapping"
    for name, expected in (("format", FORMAT), ("step", step)):
        found = manifest.get(name)
        if type(found) is not int or found != expected:
            return f"{name}={found!r}, expected {expected}"
    hashes = manifest.get("sha256")
    if not isinstance(hashes, dict) or not all(isinstance(value, str) for value in hashes.values()):
        return "sha256 is no mapping of files to hashes"
    for name in hashes:
        if Path(name).name != name:
            return f"sha256 names {name!r}, which is not in this folder"
    if STATE not in hashes or not any(name.endswith(NETWORK) for name in hashes):
        return f"sha256 lacks {STATE} or every network"
    best = manifest.get("best_step")
    return "" if best is None or type(best) is int else f"best_step={best!r}, expected a step or null"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]


def _network(folder: Path, name: str) -> Path:
    return folder / f"{name}{NETWORK}"


def _unshared(tensors: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    # safetensors refuses tensors that share memory (tied weights); each gets its own copy.
    seen: set[int] = set()
    result = []
    for name, tensor in tensors.items():
        pointer = tensor.untyped_storage().data_ptr()
        result.append((name, tensor.clone() if pointer in seen else tensor))
        seen.add(pointer)
    return result


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
