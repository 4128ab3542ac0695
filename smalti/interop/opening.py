"""Models from wherever they are: a run, a saved model, the Hub, or a checkpoint of another project."""

import logging
from pathlib import Path
from typing import Any

from torch import Tensor

from smalti.config import config_of
from smalti.config.places import local
from smalti.interop import ImportOptions
from smalti.interop._places import DIFFUSERS_NAMES, PIPELINE, SUFFIXES
from smalti.interop._recognise import AUTO, OURS, format_named
from smalti.interop._shards import indexes_in, is_index, read_index
from smalti.interop.conversion import Imported, import_checkpoint
from smalti.models._checkpoint import MODEL, find_checkpoint
from smalti.models._pretrained import CONFIG, WEIGHTS, fetch, is_saved_model, read_config, read_weights
from smalti.models._saved import SavedModel
from smalti.registry import UserError

log = logging.getLogger("smalti")


def open_model(path: str | Path, format: str = AUTO, *, trust_code: bool = False, map_location: str = "cpu") -> Any:
    """A model in evaluation mode: an autoencoder, or a generator if one was saved.

    Args:
        path: of a run, a saved model, a foreign checkpoint, or ``owner/name`` on the Hub.
        format: ``smalti``, a foreign one, or ``auto``.
        trust_code: whether the configuration of a model of ours may name classes outside smalti.
        map_location: device to load to.

    Raises:
        UserError: naming the file that is missing, damaged, unsafe, or does not fit.
    """
    path = local(path)
    foreign = foreign_source(path, format)
    if foreign is None:
        refuse_format(path, format)
        return SavedModel.from_pretrained(our_source(path), trust_code=trust_code, map_location=map_location)
    return _told(import_checkpoint(foreign, format)).model.to(map_location)


def _told(imported: Imported) -> Imported:
    """What was imported; what is to be known of its numbers goes to the log."""
    for note in imported.checkpoint.notes:
        log.warning("%s: %s", imported.checkpoint.path, note)
    return imported


def refuse_format(path: str | Path, format: str) -> None:
    """Refuses a foreign format for a model of ours.

    Raises:
        UserError: naming both.
    """
    if format not in {AUTO, OURS}:
        raise UserError(f"{path}: a model of smalti, and not {format_named(format).title}")


def our_source(path: str | Path) -> str | Path:
    """The model's folder of a run, or of its weights or configuration, or ``path`` itself."""
    place = Path(path)
    if place.name in {WEIGHTS, CONFIG} and place.is_file() and is_saved_model(place.parent):
        return place.parent
    inside = place / "model"
    return inside if (inside / CONFIG).is_file() else path


def foreign_source(path: str | Path, format: str = AUTO) -> Path | None:
    """Where a foreign checkpoint lies, downloaded from the Hub if need be; None if ``path`` means a model of ours."""
    place = Path(path)
    if format == OURS or find_checkpoint(path) is not None:
        return None
    if place.is_dir() and indexes_in(place) and not (place / WEIGHTS).is_file():
        return place  # whatever its config.json says: models of ours are never in shards
    if is_saved_model(Path(our_source(path))):
        return None
    if format != AUTO and place.exists():
        return place
    if place.is_file():
        return place
    if place.is_dir():
        return place if _holds_weights(place) else None  # from_pretrained then says what is missing
    if str(path).count("/") != 1 or str(path).startswith((".", "/")):
        return None if format == AUTO else place
    folder = fetch(str(path), CONFIG, {}).parent
    return None if is_saved_model(folder) else _download(str(path), folder)


def _holds_weights(folder: Path) -> bool:
    """Whether a folder looks like another project's: its configuration, a pipeline, or weights not named as ours."""
    if (folder / CONFIG).is_file() or (folder / PIPELINE).is_file():
        return True
    return any(entry.suffix in SUFFIXES and entry.name != WEIGHTS for entry in folder.iterdir())


def _download(repository: str, folder: Path) -> Path:
    for name in DIFFUSERS_NAMES:
        try:
            found = fetch(repository, name, {})
        except UserError:
            continue
        for shard in dict.fromkeys(read_index(found).values()) if is_index(found) else ():
            fetch(repository, shard, {})
        return folder
    raise UserError(f"{repository}: no model of smalti, and none of {', '.join(DIFFUSERS_NAMES)}")


def start_config(path: str | Path, network: str = MODEL, *, trust_code: bool = False) -> dict[str, Any]:
    """The configuration of the network that a training run starts from.

    Args:
        path: of what was saved.
        network: ``model``, or ``discriminator``: of a checkpoint of a run, or ``path`` is its own folder.
        trust_code: whether it may name classes outside smalti.

    Raises:
        UserError: if there is none, it cannot be read, or names classes outside smalti and is not trusted to.
    """
    path = local(path)
    checkpoint = find_checkpoint(path)
    if checkpoint is not None:
        return checkpoint.config(network, trust_code=trust_code)
    foreign = foreign_source(path)
    if foreign is None:
        found: dict[str, Any] = read_config(_file(path, CONFIG), trust_code=trust_code)["model"]
        return found
    return config_of(import_checkpoint(foreign, options=ImportOptions()).model)


def start_state(path: str | Path, network: str = MODEL, *, trust_code: bool = False) -> dict[str, Tensor]:
    """The tensors of the network that a training run starts from, under our names; arguments as ``start_config``.

    Raises:
        UserError: if there is none, it cannot be read, or names classes outside smalti and is not trusted to.
    """
    path = local(path)
    checkpoint = find_checkpoint(path)
    if checkpoint is not None:
        return checkpoint.state(network)
    foreign = foreign_source(path)
    if foreign is None:
        return read_weights(_file(path, WEIGHTS), read_config(_file(path, CONFIG), trust_code=trust_code))
    return _told(import_checkpoint(foreign)).model.state_dict()


def _file(path: str | Path, name: str) -> Path:
    return fetch(str(our_source(path)), name, {})
