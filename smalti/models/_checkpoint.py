"""Networks of a run before its end: ``RUN@best``, ``RUN@last``, ``RUN@400``, or a folder in ``RUN/checkpoints``.

A run says in ``recipe.yaml`` what its networks are and keeps their weights in its checkpoints. Both are read here as
data: a checkpoint is opened without the state of optimizers, and every file that is read is compared with the hash in
its manifest. What comes back is what ``RUN/model`` would hold at that step: averaged weights where the run averages.
"""

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from smalti.config import load, read_json, require_registered
from smalti.models._earlier import renamed, upgraded
from smalti.models._pretrained import CONFIG, filled, sha256
from smalti.registry import UserError, shown, suggest
from smalti.writing import printable

_N = TypeVar("_N", bound=nn.Module)

log = logging.getLogger("smalti")

RECIPE, CHECKPOINTS, MANIFEST = "recipe.yaml", "checkpoints", "manifest.json"
BEST, LAST = "best", "last"
FORMAT = 1
MODEL = "model"
_FILES = {MODEL: "generator", "discriminator": "discriminator"}  # network -> the phase that trains it
AVERAGED = "ema"
_PREFIX = "network."
_BESIDE = frozenset({"init", "freeze"})  # where a network of the recipe started: no options of it
_WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


@dataclass(frozen=True, kw_only=True)
class RunCheckpoint:
    """A checkpoint of a run.

    Args:
        run: the run folder.
        folder: of the checkpoint.
        step: generator updates completed.
        files: name -> SHA-256 of what it holds.
        best_step: the best step when it was written, None if there is none.
        good: whether the run was well when it was written: no update had failed, and all numbers were finite.
    """

    run: Path
    folder: Path
    step: int
    files: Mapping[str, str]
    best_step: int | None = None
    good: bool = True

    def has(self, network: str) -> bool:
        """Whether it holds this network."""
        return f"{_FILES[network]}.safetensors" in self.files

    def config(self, network: str = MODEL, *, trust_code: bool = False) -> dict[str, Any]:
        """The configuration of the ``model`` or the ``discriminator``, as the run's recipe has it.

        Raises:
            UserError: if the recipe is missing or damaged, has no such network, or names classes outside smalti and is
                not trusted to.
        """
        config, _ = upgraded(self._section(network))
        require_registered({network: config}, self.run / RECIPE, trust_code)
        return dict(config)

    def _section(self, network: str) -> dict[str, Any]:
        """What the recipe says of a network, in the words it was written in."""
        path = self.run / RECIPE
        if not path.is_file():
            raise UserError(
                f"{self.folder}: a checkpoint without its run: what its networks are stands in {path}, which is missing"
            )
        section = load(path).data.get(network)
        if not isinstance(section, Mapping):
            raise UserError(f"{path}: the run has no {network}")
        return {key: value for key, value in section.items() if key not in _BESIDE}

    def state(self, network: str = MODEL, *, weights: str = "auto", map_location: str = "cpu") -> dict[str, Tensor]:
        """The tensors of the ``model`` or of the ``discriminator``.

        Args:
            network: which.
            weights: of the model: averaged ones if there are any (``auto``), ``raw`` or ``ema``.
            map_location: device to load to.

        Raises:
            UserError: if a file is missing or not as it was written, or there are no averaged weights.
        """
        if not self.good:
            log.warning(
                "%s: written by a run that was not well: updates failed, or numbers were not finite", self.folder
            )
        whole = self._read(f"{_FILES[network]}.safetensors", map_location)
        state = {key.removeprefix(_PREFIX): value for key, value in whole.items() if key.startswith(_PREFIX)}
        if network == MODEL and self.weights(weights) == AVERAGED:
            state |= self._read(f"{AVERAGED}.safetensors", map_location)
        return renamed(state, upgraded(self._section(network))[1])

    def weights(self, asked: str = "auto") -> str:
        """Which weights of the model are meant: ``raw``, or ``ema`` for averaged ones.

        Raises:
            UserError: if averaged ones are asked for and there are none.
        """
        if asked == "raw":
            return asked
        averages = f"{AVERAGED}.safetensors" in self.files
        if asked == AVERAGED and not averages:
            raise UserError(f"{self.folder}: --weights ema: the run averages no weights")
        return AVERAGED if averages else "raw"

    def build(
        self,
        base: type[_N],
        network: str = MODEL,
        *,
        weights: str = "auto",
        trust_code: bool = False,
        map_location: str = "cpu",
    ) -> _N:
        """The ``model`` or the ``discriminator`` with its weights, a network of the kind ``base``, in evaluation mode.

        Raises:
            UserError: as for ``config`` and ``state``, or if it is of another kind.
        """
        config = self.config(network, trust_code=trust_code)
        state = self.state(network, weights=weights, map_location=map_location)
        return filled(base, config, state, self.folder, trust_code=trust_code, map_location=map_location)

    def _read(self, name: str, map_location: str) -> dict[str, Tensor]:
        path = self.folder / name
        if name not in self.files:
            raise UserError(f"{path}: the checkpoint holds none; it has {', '.join(sorted(self.files))}")
        try:
            if sha256(path) != self.files[name]:
                raise UserError(f"{path}: damaged, it is not as it was written")
            return load_file(path, device=map_location)
        except FileNotFoundError:
            raise UserError(f"{path}: missing, the checkpoint is damaged") from None
        except SafetensorError as error:
            raise UserError(f"{path}: damaged, it is no safetensors file ({error})") from error


def find_checkpoint(source: str | Path) -> RunCheckpoint | None:
    """The checkpoint that ``source`` means; None if it means something else.

    A path that exists means itself, whatever its name.

    Args:
        source: ``RUN@best``, ``RUN@last``, ``RUN@400``, or a folder in ``RUN/checkpoints``.

    Raises:
        UserError: if there is no such step, no best, or the checkpoint is damaged; for a run that has no model yet, and
            for a single file of a checkpoint, with what to write instead.
    """
    place = Path(source)
    if place.exists():
        return _in_place(place)
    _refuse_missing(place)
    run, at, which = str(source).rpartition("@")
    if not at or "/" in which:
        return None
    if not Path(run).is_dir():
        if which in {BEST, LAST} or which.isdecimal():
            raise UserError(f"{run}: no such run folder")
        return None
    return _chosen(Path(run), which)


def _in_place(place: Path) -> RunCheckpoint | None:
    inside = Path(os.path.abspath(place))
    if place.is_file():
        folder, run = inside.parent, inside.parent.parent.parent
        if (folder / MANIFEST).is_file() and (run / RECIPE).is_file():
            raise UserError(f"{place}: a file of a checkpoint: write {_asked(run, folder.name)}")
        return None
    run = inside.parent.parent
    if (place / MANIFEST).is_file() or (inside.parent.name == CHECKPOINTS and (run / RECIPE).is_file()):
        return _read_manifest(run, place)
    if inside.name == CHECKPOINTS and (inside.parent / RECIPE).is_file():
        raise UserError(f"{place}: all checkpoints of a run: {_choices(inside.parent)}")
    if _is_run_without_model(place):
        raise UserError(_without_model(place, place))
    return None


def _refuse_missing(place: Path) -> None:
    """Refuses what a run could hold and does not: a step written short, a step that is gone, the model of no end."""
    inside = Path(os.path.abspath(place))
    run = inside.parent.parent
    if inside.parent.name == CHECKPOINTS and (run / RECIPE).is_file():
        known = re.fullmatch(r"\d{1,18}", inside.name, re.ASCII) and int(inside.name) in _steps(run)
        raise UserError(f"{place}: no such folder: {f'write {run}@{int(inside.name)}' if known else _choices(run)}")
    if inside.name == MODEL and _is_run_without_model(inside.parent):
        raise UserError(_without_model(place, Path(place).parent))


def _without_model(place: Path, run: Path) -> str:
    asked = "a run without model/ yet" if place == run else "no such folder, its run has no model yet"
    return (
        f"{place}: {asked}, as one that was stopped: `smalti train RECIPE --out {run} --resume` goes on with it; "
        f"{_choices(run)}"
    )


def _asked(run: Path, name: str) -> str:
    return f"{run}@{int(name)}" if name.isdecimal() else f"{run}@{LAST}"


def _is_run_without_model(place: Path) -> bool:
    if not (place / RECIPE).is_file() or (place / CONFIG).is_file() or (place / MODEL / CONFIG).is_file():
        return False
    return not any(entry.suffix in _WEIGHTS for entry in place.iterdir())


def _steps(run: Path) -> list[int]:
    """Steps of the checkpoints of a run, ascending."""
    folder = run / CHECKPOINTS
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if re.fullmatch(r"\d{8,18}", entry.name, re.ASCII))


def _choices(run: Path) -> str:
    steps = _steps(run)
    if not steps:
        return "it has no checkpoint to take a model from"
    listed = ", ".join(map(str, steps[-12:]))
    return f"{run}@{LAST} or {run}@{steps[-1]} takes the model of a checkpoint (steps there: {listed})"


def _chosen(run: Path, which: str) -> RunCheckpoint:
    """The checkpoint of a run that a word or a number means."""
    steps = _steps(run)
    if not steps:
        raise UserError(f"{run}@{which}: {run} has no checkpoint; `--resume` goes on with a run that was stopped")
    if which == LAST:
        return _newest(run, steps)
    if which == BEST:
        best = _newest(run, steps).best_step
        if best is None:
            raise UserError(f"{run}@{BEST}: the run knows no best step (validation.monitor sets what it is by)")
        which = str(best)
    elif not re.fullmatch(r"\d{1,18}", which, re.ASCII):
        near = suggest(which, [BEST, LAST, *map(str, steps)])
        raise UserError(f"{run}@{printable(which)}: expected {BEST}, {LAST} or a step{near}")
    step = int(which)
    if step not in steps:
        raise UserError(f"{run}@{step}: no checkpoint of this step; steps there: {', '.join(map(str, steps))}")
    return _read_manifest(run, run / CHECKPOINTS / f"{step:08d}")


def _newest(run: Path, steps: list[int]) -> RunCheckpoint:
    """The newest checkpoint whose manifest can be read; those that are passed over are named in the log."""
    problems = []
    for step in reversed(steps):
        try:
            return _read_manifest(run, run / CHECKPOINTS / f"{step:08d}")
        except UserError as error:
            problems.append(str(error))
            log.warning("%s", error)
    raise UserError(f"{run}: no checkpoint can be read: {'; '.join(problems)}")


def _read_manifest(run: Path, folder: Path) -> RunCheckpoint:
    path = folder / MANIFEST
    try:
        found = read_json(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UserError(f"{folder}: a damaged checkpoint, {MANIFEST} cannot be read ({reason})") from error
    wrong = _manifest_problem(found)
    if not wrong and folder.name.isdecimal() and int(folder.name) != found["step"]:
        wrong = f"step={found['step']}: expected that of its folder"
    if wrong:
        raise UserError(f"{path}: a damaged checkpoint: {wrong}")
    return RunCheckpoint(
        run=run,
        folder=folder,
        step=found["step"],
        files=found["sha256"],
        best_step=found.get("best_step"),
        good=found.get("good", True) is True,
    )


def _manifest_problem(found: Any) -> str | None:
    if not isinstance(found, Mapping):
        return f"expected a mapping, found {shown(found)}"
    if found.get("format") != FORMAT:
        return f"format={shown(found.get('format'))}: this smalti reads {FORMAT}"
    for name in ("step", "best_step"):
        value = found.get(name)
        if not (value is None and name == "best_step") and (type(value) is not int or not 0 <= value < 10**18):
            return f"{name}={shown(value)}: expected a step"
    files = found.get("sha256")
    if not isinstance(files, Mapping) or not files:
        return f"sha256={shown(files)}: expected a hash for each file"
    odd = [name for name, value in files.items() if Path(name).name != name or not isinstance(value, str)]
    return f"{shown(odd[0])}: expected the name of a file in it, and its hash" if odd else None
