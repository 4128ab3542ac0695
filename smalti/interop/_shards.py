"""Weights in several files: an index says which file holds which tensor, and everything it says is checked.

The index is JSON, ``{"weight_map": {key: file}}``, as transformers and diffusers write it.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from torch import Tensor

from smalti.config import read_json, read_text
from smalti.interop._reading import read_file
from smalti.interop._signatures import kind_of
from smalti.registry import UserError, shown

# x.safetensors.index.json, x.fp16.safetensors.index.json, x.safetensors.index.fp16.json, pytorch_model.bin.index.json
INDEX = re.compile(r".*\.(?:safetensors|bin|pt|pth|ckpt)\.index(?:\.[\w-]+)?\.json")
SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})(?:\.[\w-]+)*\.(?:safetensors|bin|pt|pth|ckpt)", re.ASCII)
_PLAIN = re.compile(r"[^.]+\.\w+\.index\.json")  # of no variant
_LISTED = 5


def is_index(path: Path) -> bool:
    """Whether a file is read as an index of shards: no other JSON stands for weights."""
    return path.suffix == ".json"


def indexes_in(folder: Path) -> list[Path]:
    """The indexes of a folder: those without a variant (``fp16``) alone if there are any, then those of safetensors."""
    found = sorted(entry for entry in folder.iterdir() if INDEX.fullmatch(entry.name) and entry.is_file())
    found = [entry for entry in found if _PLAIN.fullmatch(entry.name)] or found
    return [entry for entry in found if ".safetensors." in entry.name] or found


def is_shard(path: Path) -> bool:
    """Whether a file is named as one of several shards."""
    named = SHARD.fullmatch(path.name)
    return named is not None and int(named["count"]) > 1


def read_shards(index: Path) -> dict[str, Tensor]:
    """All tensors of an index, each from the shard that it names.

    Raises:
        UserError: if the index is damaged or names files outside its folder, a shard is missing or damaged, or holds
            other tensors than the index says.
    """
    where = read_index(index)
    shards = {name: index.parent / name for name in dict.fromkeys(where.values())}
    missing = [name for name, path in shards.items() if not _is_file(path)]
    if missing:
        raise UserError(f"{index}: missing {_some(missing)}: shards that it names, and that are not beside it")
    state: dict[str, Tensor] = {}
    holder: dict[str, str] = {}
    for name, path in shards.items():
        for key, value in _shard(path, where).items():
            if key in holder:
                raise UserError(f"{index}: {key} is in several shards: {holder[key]} and {name}")
            holder[key], state[key] = name, value
    _check_places(index, where, holder)
    return state


def read_index(index: Path) -> dict[str, str]:
    """Key -> the shard that holds it, a path inside the index's folder.

    Raises:
        UserError: if it is no such JSON, or a shard's name leaves the folder.
    """
    text = read_text(index)
    if text.strip() and text.lstrip()[0] not in "{[":
        kind_of(index)  # a page or a pointer in place of the index is named
    found = read_json(text, str(index))
    places = found.get("weight_map") if isinstance(found, Mapping) else None
    if not isinstance(places, Mapping) or not places:
        what = shown(found) if places is None else f"weight_map={shown(places)}"
        expected = "an index of shards, {'weight_map': {key: file}}; a configuration is read with the folder around it"
        raise UserError(f"{index}: {what}: expected {expected}")
    if twice := _twice(text):
        raise UserError(f"{index}: named twice: {_some(twice)}")
    for key, name in places.items():
        if not isinstance(name, str):
            raise UserError(f"{index}: the shard of {shown(key)} is {shown(name)}: expected the name of a file")
        if not _stays_inside(name):
            raise UserError(f"{index}: the shard {shown(name)}: expected the name of a file in the index's own folder")
    return dict(places)


def _twice(text: str) -> list[str]:
    """Names that stand twice in a mapping of a JSON text, of which a parser keeps the last."""
    found: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found.extend(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        return dict(pairs)

    json.loads(text, object_pairs_hook=note)
    return found


def _stays_inside(name: str) -> bool:
    """Whether a relative path leads into the folder it starts from, read as POSIX and as Windows would."""
    if not name.strip() or "\0" in name:
        return False
    ways = (PurePosixPath(name), PureWindowsPath(name))
    return all(way.parts and ".." not in way.parts and not way.anchor for way in ways)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or of half a letter
        return False


def _shard(path: Path, keys: Mapping[str, str]) -> dict[str, Tensor]:
    held = read_file(path, keys)
    if not isinstance(held, Mapping):
        raise UserError(f"{path}: holds a {type(held).__name__}: expected a shard of a state dict")
    odd = [str(key) for key, value in held.items() if not isinstance(value, Tensor)]
    if odd:
        raise UserError(f"{path}: expected tensors alone in a shard, it holds {_some(odd)}, too")
    return {str(key): value for key, value in held.items()}


def _check_places(index: Path, where: Mapping[str, str], holder: Mapping[str, str]) -> None:
    wrong = [f"{key} ({name})" for key, name in where.items() if holder.get(key) != name]
    if wrong:
        raise UserError(f"{index}: not in the shard that it names: {_some(wrong)}")
    unnamed = [f"{key} ({name})" for key, name in holder.items() if key not in where]
    if unnamed:
        raise UserError(f"{index}: in a shard, and not named by the index: {_some(unnamed)}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
