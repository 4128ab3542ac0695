"""One file of tensors, read safely: safetensors, and pickles that may name nothing but tensors.

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
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from smalti.interop._signatures import kind_of
from smalti.registry import UserError

AUTOENCODERS = ("encoder.conv_in.weight", "encoder.conv_in.bias", "decoder.conv_out.weight")
ANCHORS = (*AUTOENCODERS, "tok_embeddings.weight", "tok_embeddings_1.weight")
PREFIXES = ("first_stage_model.", "vae.", "")
# What pickles of Lightning's classes and of numpy's numbers and arrays name, of any version of both.
INERT = re.compile(
    r"(pytorch_lightning|lightning|lightning_fabric)\.[\w.]+$|numpy\.(dtype|ndarray|dtypes\.\w+)$"
    r"|numpy\._?core\.multiarray\.(scalar|_reconstruct)$"
)
UNREAD = torch.empty(0, device="meta")


def read_file(path: Path, keys: Collection[str] = ()) -> Any:
    """What a file holds: a state dict, or the containers of a pickle with one inside.

    Args:
        path: of safetensors or a pickle, told by its bytes.
        keys: of the whole checkpoint, if the file is a part of it.

    Raises:
        UserError: if it is damaged, no file of weights, or asks for code.
    """
    return _read_safetensors(path, keys) if kind_of(path) == "safetensors" else _read_pickle(path)


def prefixes(keys: Iterable[str]) -> list[str]:
    """What stands in front of the keys of the models that are read; the known ones alone if there are any."""
    found = dict.fromkeys(
        key.removesuffix(anchor) for key in keys for anchor in ANCHORS if key == anchor or key.endswith(f".{anchor}")
    )
    return [prefix for prefix in PREFIXES if prefix in found] or list(found)


def _read_safetensors(path: Path, whole: Collection[str]) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            keys = list(file.keys())
            known = tuple(prefixes(whole or keys)) or ("",)
            known = known[:1] if known[0] in PREFIXES else known
            # What will be dropped is not read: a diffusion model around the autoencoder has gigabytes.
            return {key: _tensor(file, key, path) if key.startswith(known) else UNREAD for key in keys}
    except (SafetensorError, OSError) as error:
        unknown = re.search(r"unknown variant `(\w+)`", str(error))
        if unknown:
            raise UserError(f"{path}: it holds tensors of the dtype {unknown[1]}, which is not read") from error
        raise UserError(f"{path}: damaged, it is no complete safetensors file ({error})") from error


def _tensor(file: Any, key: str, path: Path) -> Tensor:
    try:
        found: Tensor = file.get_tensor(key)
    except (SafetensorError, KeyError, AttributeError, TypeError, RuntimeError) as error:
        dtype = file.get_slice(key).get_dtype()
        raise UserError(f"{path}: {key} has the dtype {dtype}, which is not read ({first_line(error)})") from error
    return found


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
            if path.suffix == ".safetensors":  # torch goes by the name, and would take it for one
                with path.open("rb") as file:
                    return torch.load(file, map_location="cpu", weights_only=True)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise UserError(_refusal(path, str(error))) from error
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError, IndexError, OSError) as error:
        if "UntypedStorage" in str(error):
            what = "a dtype that the container of torch before 1.6 has no place for; save it in today's"
            raise UserError(f"{path}: it holds tensors of {what}") from error
        raise UserError(f"{path}: damaged, it cannot be read as a checkpoint ({first_line(error)})") from error


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


def first_line(error: BaseException) -> str:
    """What an error says, without what follows the first line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
