"""Where the weights of a path lie: the file itself, the one of a folder, an index, the autoencoder of a pipeline."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smalti.config import read_json, read_text, read_yaml
from smalti.interop._classes import AUTOENCODERS, READ, refuse_class
from smalti.interop._shards import SHARD, indexes_in, is_index, is_shard, read_index
from smalti.registry import UserError, shown

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
PIPELINE = "model_index.json"
_STEM = "diffusion_pytorch_model"
# What diffusers writes, in the order it is looked for: a file, or an index of shards in either spelling.
DIFFUSERS_NAMES = tuple(
    dict.fromkeys(
        f"{_STEM}{name}"
        for variant in ("", ".fp16")
        for suffix in (".safetensors", ".bin")
        for name in (f"{variant}{suffix}", f"{suffix}.index{variant}.json", f"{variant}{suffix}.index.json")
    )
)


def locate(path: Path) -> Path:
    """The weights file, or index of shards, that ``path`` means: itself, or the one in a folder.

    Raises:
        UserError: if there is none, or more than one; if a folder is of a network that smalti has not.
    """
    if path.is_file():
        return _whole(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    if (path / PIPELINE).is_file():
        return locate(_of_pipeline(path))
    config, place = read_config_beside(path / _STEM)
    refuse_class(config, place or path)
    for name in DIFFUSERS_NAMES:
        if (path / name).is_file():
            return path / name
    return _only(path)


def _only(folder: Path) -> Path:
    """The one weights file of a folder, or the one index of shards."""
    indexes = indexes_in(folder)
    shards = {name for index in indexes for name in read_index(index).values()}
    files = sorted(entry for entry in folder.iterdir() if entry.suffix in SUFFIXES and entry.is_file())
    found = [entry for entry in files if entry.name not in shards and not is_shard(entry)] + indexes
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{folder}: several weights files, name one: {', '.join(entry.name for entry in found)}")
    if files:
        raise UserError(f"{folder}: shards without their index: expected a file that ends in .index.json beside them")
    raise UserError(f"{folder}: no weights here; expected a file that ends in {', '.join(SUFFIXES)}, or .index.json")


def _whole(path: Path) -> Path:
    """A file, if it is not one shard of several."""
    if not is_shard(path) or (named := SHARD.fullmatch(path.name)) is None:
        return path
    beside = [index for index in indexes_in(path.parent) if index.name.startswith(named["stem"].partition(".")[0])]
    what = f"name the index, {beside[0]}" if beside else "its index (.index.json) is not beside it"
    raise UserError(f"{path}: one of {int(named['count'])} shards: {what}")


def _of_pipeline(folder: Path) -> Path:
    """The folder of the autoencoder of a pipeline of diffusers."""
    index = folder / PIPELINE
    found = read_json(read_text(index), str(index))
    if not isinstance(found, Mapping):
        raise UserError(f"{index}: {shown(found)}: expected the parts of a pipeline")
    folders = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    chosen = [name for name in folders if name in AUTOENCODERS or _is_autoencoder(found.get(name))]
    chosen = [name for name in chosen if _may_be_read(folder / name)] or chosen
    if len(chosen) > 1:
        listed = ", ".join(str(folder / name) for name in chosen)
        raise UserError(f"{folder}: a pipeline with several autoencoders, name one: {listed}")
    if not chosen:
        held = f"it has {', '.join(folders)}" if folders else "it has no folders"
        raise UserError(f"{folder}: a pipeline of diffusers without {', '.join(AUTOENCODERS)}: {held}")
    return folder / chosen[0]


def _may_be_read(part: Path) -> bool:
    """Whether a part of a pipeline is of a class that is read, or says none."""
    config, _ = read_config_beside(part / _STEM)
    return config.get("_class_name", READ[0]) in READ


def _is_autoencoder(entry: Any) -> bool:
    """Whether a pipeline's entry, ``[library, class]``, is of an autoencoder."""
    if not isinstance(entry, list) or len(entry) != 2:
        return False
    return any(word in str(entry[1]) for word in ("Autoencoder", "VAE", "VQModel"))


def read_config_beside(file: Path) -> tuple[Mapping[str, Any], Path | None]:
    """The configuration that belongs to a weights file: of its own name, or the folder's ``config``.

    Raises:
        UserError: if it is there and cannot be read.
    """
    endings = (".json", ".yaml", ".yml")
    own = [] if is_index(file) else [file.with_suffix(end) for end in endings]
    for place in own + [file.with_name(f"config{end}") for end in endings]:
        if not place.is_file() or place == file:
            continue
        text = read_text(place)
        found = read_json(text, str(place)) if place.suffix == ".json" else read_yaml(text, str(place))
        if isinstance(found, Mapping):
            return found, place
    return {}, None
