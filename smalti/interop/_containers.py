"""State dicts out of what a file holds: containers are peeled off, prefixes taken away, averages put in their place."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from smalti.interop import Weights
from smalti.interop._members import USUAL, Member, is_averaged, members, unwrapped
from smalti.interop._numbers import is_marked, widened
from smalti.interop._places import locate, read_config_beside
from smalti.interop._reading import PREFIXES, prefixes, read_file
from smalti.interop._shards import is_index, read_shards
from smalti.registry import UserError

LITEMA = "model_ema."
DISCRIMINATORS = ("loss.discriminator.",)


@dataclass
class Checkpoint:
    """What a file holds, its containers peeled off.

    Args:
        path: the file.
        state: the autoencoder's tensors, under foreign names.
        config: the original's configuration beside the file, empty if there is none.
        config_path: where that was found.
        weights: ``raw``, or ``ema`` for averaged ones.
        discriminator: tensors of the discriminator, empty if there is none.
        discriminator_place: what stands in front of their names in the file.
        dropped: reason -> what was left out.
        notes: what the user should know of the numbers in the file.
    """

    path: Path
    state: dict[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    config_path: Path | None = None
    weights: str = "raw"
    discriminator: dict[str, Tensor] = field(default_factory=dict)
    discriminator_place: str = ""
    dropped: dict[str, list[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def drop(self, reason: str, keys: Iterable[str]) -> None:
        """Notes keys that are left out."""
        if listed := list(keys):
            self.dropped.setdefault(reason, []).extend(listed)


def read_checkpoint(path: Path, weights: Weights = "auto") -> Checkpoint:
    """Reads a file, an index of shards, or the weights of a folder.

    Args:
        path: of the file or folder.
        weights: averaged ones if there are any (``auto``), ``raw`` or ``ema``.

    Raises:
        UserError: if there is no such file, it is damaged, asks for code, or holds no state dict.
    """
    file = locate(path)
    config, config_path = read_config_beside(file)
    checkpoint = Checkpoint(file, {}, config, config_path)
    loaded = read_shards(file) if is_index(file) else read_file(file)
    state = _open_container(loaded, checkpoint, weights)
    marked = is_marked(state, next(iter(prefixes(state)), ""))
    state = _choose_litema(_inside_prefix(state, checkpoint, weights), checkpoint, weights)
    state = _widened(state, checkpoint, marked)
    checkpoint.discriminator = _widened(checkpoint.discriminator, checkpoint, marked)
    for prefix in DISCRIMINATORS:
        for key in [key for key in state if key.startswith(prefix)]:
            checkpoint.discriminator[key.removeprefix(prefix)] = state.pop(key)
            checkpoint.discriminator_place = prefix
    checkpoint.state = state
    return checkpoint


def _open_container(loaded: Any, checkpoint: Checkpoint, weights: Weights) -> dict[str, Tensor]:
    """The state dict in what was read; everything else is dropped with its reason."""
    if not isinstance(loaded, Mapping):
        raise UserError(f"{checkpoint.path}: holds a {type(loaded).__name__}: expected a state dict")
    found = members(loaded)
    if not found or found[0].path == ():
        return _tensors_only(loaded, checkpoint)
    chosen = _choose(found, checkpoint, weights)
    checkpoint.weights = "ema" if chosen.is_averaged else "raw"
    around: Any = loaded
    for depth, step in enumerate(chosen.path):
        for key in around:
            path = (*chosen.path[:depth], str(key))
            if key == "discriminator" and isinstance(around[key], Mapping):
                checkpoint.discriminator = _tensors_only(around[key], checkpoint)
                checkpoint.discriminator_place = ".".join(path) + "."
            elif str(key) != step:
                other = any(one.path[: depth + 1] == path for one in found)
                reason = "the other weights (--weights)" if other else "state of the training"
                checkpoint.drop(reason, [".".join(path)])
        around = around[step]
    return _tensors_only(chosen.state, checkpoint)


def _choose(found: Sequence[Member], checkpoint: Checkpoint, weights: Weights) -> Member:
    """The member that is meant: averaged or not as asked for, and the only one of its kind, or of a usual name."""
    named = ", ".join(".".join(one.path) for one in found)
    if weights == "raw":
        found = [one for one in found if not one.is_averaged]
        if not found:
            raise UserError(f"{checkpoint.path}: --weights raw: it holds averaged weights only ({named})")
    same = [one for one in found if one.is_averaged == found[0].is_averaged]
    if len(same) > 1 and same[0].path[0] not in (*USUAL, "ema"):
        raise UserError(
            f"{checkpoint.path}: holds several models: {named}. Open it and save the one that is meant alone, best as "
            "safetensors"
        )
    return same[0]


def _tensors_only(state: Mapping[Any, Any], checkpoint: Checkpoint) -> dict[str, Tensor]:
    tensors = {key: value for key, value in unwrapped(state).items() if isinstance(value, Tensor)}
    if not tensors:
        named = ", ".join(str(key) for key in list(state)[:8]) or "nothing"
        raise UserError(f"{checkpoint.path}: holds no state dict; its entries are {named}")
    checkpoint.drop("no tensors", (str(key) for key, value in state.items() if not isinstance(value, Tensor)))
    return tensors


def _inside_prefix(state: dict[str, Tensor], checkpoint: Checkpoint, weights: Weights) -> dict[str, Tensor]:
    """The autoencoder of a file that holds more: keys behind ``first_stage_model.``, ``vae.`` or another prefix."""
    known = prefixes(state)
    if not known or known[0] == "":
        return state
    chosen = known[0]
    twins: tuple[str, ...] = ()
    if len(known) > 1 and chosen not in PREFIXES:
        kinds = {is_averaged(prefix.removesuffix(".")): prefix for prefix in known}
        if len(kinds) < len(known):
            raise UserError(f"{checkpoint.path}: holds several autoencoders: {', '.join(known)}")
        chosen, twins = kinds[weights != "raw"], tuple(known)
        checkpoint.weights = "raw" if weights == "raw" else "ema"
    for key in state:
        if not key.startswith(chosen):
            twin = key.startswith(twins)
            reason = "the other weights (--weights)" if twin else f"outside {chosen!r}: another network of the file"
            checkpoint.drop(reason, [key])
    return {key.removeprefix(chosen): value for key, value in state.items() if key.startswith(chosen)}


def _choose_litema(state: dict[str, Tensor], checkpoint: Checkpoint, weights: Weights) -> dict[str, Tensor]:
    """Averaged weights of latent-diffusion's LitEma in place of the raw ones: their names have lost all dots."""
    averaged = {key: state.pop(key) for key in list(state) if key.startswith(LITEMA)}
    if not averaged:
        if weights == "ema" and checkpoint.weights != "ema":
            raise UserError(f"{checkpoint.path}: --weights ema: it holds no averaged weights")
        return state
    dotless: dict[str, list[str]] = {}
    for key in state:
        dotless.setdefault(LITEMA + key.replace(".", ""), []).append(key)
    counters = [key for key in averaged if key in {f"{LITEMA}decay", f"{LITEMA}num_updates"}]
    odd = [key for key in averaged if key not in counters and len(dotless.get(key, [])) != 1]
    if odd:
        raise UserError(f"{checkpoint.path}: averaged weights that belong to no single weight: {', '.join(odd)}")
    checkpoint.drop("counters of the average", counters)
    if weights == "raw":
        checkpoint.drop("the other weights (--weights)", (key for key in averaged if key not in counters))
        return state
    checkpoint.weights = "ema"
    replaced = {dotless[key][0]: value for key, value in averaged.items() if key not in counters}
    checkpoint.drop("the other weights (--weights)", replaced)
    return {key: replaced.get(key, value) for key, value in state.items()}


def _widened(state: Mapping[str, Tensor], checkpoint: Checkpoint, marked: bool) -> dict[str, Tensor]:
    """A state dict in floating point; what became of it is noted."""
    numbers = widened(state, checkpoint.path, marked=marked)
    checkpoint.notes += tuple(numbers.notes)
    for reason, keys in numbers.dropped.items():
        checkpoint.drop(reason, keys)
    return numbers.state
