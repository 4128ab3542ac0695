"""Files that hold a state dict, read safely: safetensors, and pickles that may name nothing but tensors.

A pickle is a program. Only ``torch.load(weights_only=True)`` opens one here, which knows tensors and plain containers;
``argparse.Namespace`` is allowed beside them (LlamaGen and FQGAN store their options so). Classes of Lightning, whose
checkpoints use callbacks as keys, and the numbers of numpy that callbacks keep are replaced by an empty stand-in:
nothing of theirs is imported or run.
"""

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from smalti.config import read_json, read_yaml
from smalti.interop import Weights
from smalti.registry import UserError

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
DIFFUSERS_NAMES = tuple(
    f"diffusion_pytorch_model{variant}{suffix}" for variant in ("", ".fp16") for suffix in (".safetensors", ".bin")
)
ANCHORS = ("encoder.conv_in.weight", "encoder.conv_in.bias", "decoder.conv_out.weight")
PREFIXES = ("first_stage_model.", "vae.", "")
LITEMA = "model_ema."
DISCRIMINATORS = ("loss.discriminator.",)
# What pickles of Lightning's classes and of numpy's numbers and arrays name, of any version of both.
INERT = re.compile(
    r"(pytorch_lightning|lightning|lightning_fabric)\.[\w.]+$|numpy\.(dtype|ndarray|dtypes\.\w+)$"
    r"|numpy\._?core\.multiarray\.(scalar|_reconstruct)$"
)
_UNREAD = torch.empty(0, device="meta")


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
    """

    path: Path
    state: dict[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    config_path: Path | None = None
    weights: str = "raw"
    discriminator: dict[str, Tensor] = field(default_factory=dict)
    discriminator_place: str = ""
    dropped: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, reason: str, keys: Iterable[str]) -> None:
        """Notes keys that are left out."""
        if listed := list(keys):
            self.dropped.setdefault(reason, []).extend(listed)


def read_checkpoint(path: Path, weights: Weights = "auto") -> Checkpoint:
    """Reads a file, or the one weights file of a folder.

    Args:
        path: of the file or folder.
        weights: averaged ones if there are any (``auto``), ``raw`` or ``ema``.

    Raises:
        UserError: if there is no such file, it is damaged, asks for code, or holds no state dict.
    """
    file = locate(path)
    config, config_path = read_config_beside(file)
    checkpoint = Checkpoint(file, {}, config, config_path)
    loaded = _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file)
    state = _open_container(loaded, checkpoint, weights)
    state = _choose_litema(_inside_prefix(state, checkpoint), checkpoint, weights)
    for prefix in DISCRIMINATORS:
        for key in [key for key in state if key.startswith(prefix)]:
            checkpoint.discriminator[key.removeprefix(prefix)] = state.pop(key)
            checkpoint.discriminator_place = prefix
    checkpoint.state = {key: _widened(value) for key, value in state.items()}
    checkpoint.discriminator = {key: _widened(value) for key, value in checkpoint.discriminator.items()}
    return checkpoint


def locate(path: Path) -> Path:
    """The weights file that ``path`` means: itself, the one in a folder, or the ``vae`` of a pipeline's folder.

    Raises:
        UserError: if there is none, or more than one.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    if (path / "model_index.json").is_file() and (path / "vae").is_dir():
        return locate(path / "vae")
    for name in DIFFUSERS_NAMES:
        if (path / name).is_file():
            return path / name
    found = sorted(entry for entry in path.iterdir() if entry.suffix in SUFFIXES and entry.is_file())
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{path}: several weights files, name one: {', '.join(entry.name for entry in found)}")
    raise UserError(f"{path}: no weights here; expected a file that ends in {', '.join(SUFFIXES)}")


def read_config_beside(file: Path) -> tuple[Mapping[str, Any], Path | None]:
    """The configuration that belongs to a weights file: of its own name, or the folder's ``config``.

    Raises:
        UserError: if it is there and cannot be read.
    """
    endings = (".json", ".yaml", ".yml")
    for place in [file.with_suffix(end) for end in endings] + [file.with_name(f"config{end}") for end in endings]:
        if not place.is_file():
            continue
        try:
            text = place.read_text(encoding="utf-8")
            found = read_json(text, str(place)) if place.suffix == ".json" else read_yaml(text, str(place))
        except UnicodeDecodeError as error:
            raise UserError(f"{place}: damaged, it is no text ({error})") from error
        if isinstance(found, Mapping):
            return found, place
    return {}, None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            keys = list(file.keys())
            prefix = next(iter(_prefixes(keys)), "")
            # What will be dropped is not read: a diffusion model around the autoencoder has gigabytes.
            return {key: file.get_tensor(key) if key.startswith(prefix) else _UNREAD for key in keys}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged, it is no complete safetensors file ({error})") from error


class Inert:
    """Stands for a class of another program that a checkpoint names: holds nothing, does nothing."""

    def __init__(self, *arguments: object, **options: object) -> None:
        """Forgets its arguments."""

    def __setstate__(self, state: object) -> None:
        """Forgets its state."""


def _read_pickle(path: Path) -> Any:
    allowed: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [argparse.Namespace]
    try:
        allowed += [(type(name.rpartition(".")[2], (Inert,), {}), name) for name in _inert_names(path)]
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # other protocols of pickle: what cannot be read is an error
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise UserError(_refusal(path, str(error))) from error
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError, IndexError, OSError) as error:
        raise UserError(f"{path}: damaged, it cannot be read as a checkpoint ({_first_line(error)})") from error


def _inert_names(path: Path) -> list[str]:
    """Names in a checkpoint that get a stand-in, found without running it."""
    if not zipfile.is_zipfile(path):
        return []
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    return [name for name in names if INERT.match(name)]


def _refusal(path: Path, message: str) -> str:
    asked = re.search(r"\bGLOBAL ([\w.]+)", message) or re.search(
        r"[Uu]nsupported (?:global|class)\W+([\w.]+)", message
    )
    if asked is None:
        return f"{path}: damaged, or no checkpoint ({message.splitlines()[0] if message else 'empty'})"
    return (
        f"{path}: refused, it asks for {asked[1]}, which could run code. If you trust its source, open it there and "
        "save the state dict alone, best as safetensors"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _open_container(loaded: Any, checkpoint: Checkpoint, weights: Weights) -> dict[str, Tensor]:
    """The state dict in what was read; everything else is dropped with its reason."""
    if not isinstance(loaded, Mapping):
        raise UserError(f"{checkpoint.path}: holds a {type(loaded).__name__}: expected a state dict")
    averaged = isinstance(loaded.get("ema"), Mapping)
    order = ("model", "state_dict", "ema") if weights == "raw" else ("ema", "model", "state_dict")
    chosen = next((name for name in order if isinstance(loaded.get(name), Mapping)), None)
    if weights == "raw" and chosen == "ema":
        raise UserError(f"{checkpoint.path}: --weights raw: it holds averaged weights only")
    if chosen is None:
        return _tensors_only(loaded, checkpoint)
    checkpoint.weights = "ema" if chosen == "ema" else "raw"
    if isinstance(loaded.get("discriminator"), Mapping):
        checkpoint.discriminator = _tensors_only(loaded["discriminator"], checkpoint)
        checkpoint.discriminator_place = "discriminator."
    for name in loaded:
        if name not in {chosen, "discriminator"}:
            other = averaged and name in {"ema", "model"}
            checkpoint.drop("the other weights (--weights)" if other else "state of the training", [str(name)])
    return _tensors_only(loaded[chosen], checkpoint)


def _tensors_only(state: Mapping[Any, Any], checkpoint: Checkpoint) -> dict[str, Tensor]:
    tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        named = ", ".join(str(key) for key in list(state)[:8]) or "nothing"
        raise UserError(f"{checkpoint.path}: holds no state dict; its entries are {named}")
    checkpoint.drop("no tensors", (str(key) for key in state if str(key) not in tensors))
    return tensors


def _inside_prefix(state: dict[str, Tensor], checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The autoencoder of a file that holds more: keys behind ``first_stage_model.``, ``vae.`` or another prefix."""
    known = _prefixes(state)
    if not known or known[0] == "":
        return state
    if len(known) > 1 and known[0] not in PREFIXES:
        raise UserError(f"{checkpoint.path}: holds several autoencoders: {', '.join(known)}")
    for key in state:
        if not key.startswith(known[0]):
            checkpoint.drop(f"outside {known[0]!r}: another network of the file", [key])
    return {key.removeprefix(known[0]): value for key, value in state.items() if key.startswith(known[0])}


def _prefixes(keys: Iterable[str]) -> list[str]:
    """What stands in front of the keys of autoencoders; the known ones alone if there are any."""
    found = dict.fromkeys(
        key.removesuffix(anchor) for key in keys for anchor in ANCHORS if key == anchor or key.endswith(f".{anchor}")
    )
    return [prefix for prefix in PREFIXES if prefix in found] or list(found)


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


def _widened(value: Tensor) -> Tensor:
    """Half precision as float32, which holds it exactly: a KL autoencoder overflows in float16."""
    return value.float() if value.dtype in {torch.float16, torch.bfloat16} else value
