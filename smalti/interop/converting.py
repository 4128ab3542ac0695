"""A whole conversion: read, translate, prove, write; nothing is written unless it was proven."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from smalti.config import config_of
from smalti.interop import Format, ImportOptions
from smalti.interop._discriminator import import_discriminator
from smalti.interop._recognise import AUTO, OURS, format_named
from smalti.interop.conversion import Imported, export_state, heads_of, import_checkpoint
from smalti.interop.opening import foreign_source, our_source
from smalti.interop.verification import Check, check_round_trip, compare, same_tensors
from smalti.models._pretrained import CONFIG, save_model
from smalti.models.autoencoder import Autoencoder
from smalti.registry import UserError

DISCRIMINATOR = "discriminator"


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What was converted, and the proof.

    Args:
        path: what was written.
        source: format it was read from.
        target: format it was written to.
        weights: ``raw`` or ``ema``.
        parameters: of the model.
        tensors: that were translated.
        dropped: reason -> keys that were left out.
        notes: what someone who goes on with it should know.
        checks: numeric comparisons.
        discriminator: whether one was carried along.
    """

    path: Path
    source: str
    target: str
    weights: str
    parameters: int
    tensors: int
    dropped: Mapping[str, list[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    discriminator: bool = False


def convert(
    source: str | Path,
    target: str | Path,
    *,
    source_format: str = AUTO,
    target_format: str = OURS,
    options: ImportOptions | None = None,
    keep_discriminator: bool = False,
) -> Conversion:
    """Converts a checkpoint from one format to another.

    Args:
        source: a file or folder; a saved model of ours, a run folder or a Hub repository.
        target: the file or folder to write; what is there is replaced.
        source_format: of ``source``, or ``auto``.
        target_format: a foreign format, or ``smalti``.
        options: what foreign tensors do not show.
        keep_discriminator: carry the discriminator of a foreign checkpoint along, to ``target/discriminator``.

    Raises:
        UserError: if the source cannot be read or the target format cannot hold it, or the conversion is not exact.
    """
    target = Path(target)
    writes = None if target_format == OURS else format_named(target_format)
    _check_target(target, writes)
    options = options or ImportOptions()
    model, imported = _open(source, source_format, options)
    discriminator = _discriminator(imported, keep_discriminator, writes, model)
    checks, dropped, notes = [], dict(imported.dropped) if imported else {}, list(imported.notes) if imported else []
    tensors = check_round_trip(imported) if imported else 0
    if imported and (check := _twin_check(imported.format, model, imported.checkpoint.config)):
        checks.append(check)
    with _whole_or_nothing(target) as place:
        if writes is None:
            model.save_pretrained(place)
            if discriminator is not None:
                (place / DISCRIMINATOR).mkdir()
                save_model(discriminator, place / DISCRIMINATOR)
            again = Autoencoder.from_pretrained(place)
        else:
            made = export_state(model, writes)
            dropped |= made.dropped
            tensors = tensors or len(made.state)
            writes.write(place, made.state, config_of(model))
            again = import_checkpoint(
                place, target_format, ImportOptions(weights="raw", heads=heads_of(config_of(model)))
            ).model
            if not checks and (check := _twin_check(writes, model, {})):
                checks.append(check)
        _check_same(model, again)
        checks.append(compare(model, again, "written and read again:"))
    return Conversion(
        path=target,
        source=imported.format.title if imported else OURS,
        target=writes.title if writes else OURS,
        weights=imported.checkpoint.weights if imported else "raw",
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        tensors=tensors or len(model.state_dict()),
        dropped=dropped,
        notes=tuple(notes),
        checks=tuple(checks),
        discriminator=discriminator is not None,
    )


def _open(source: str | Path, name: str, options: ImportOptions) -> tuple[Autoencoder, Imported | None]:
    place = foreign_source(source, name)
    if place is None:
        return Autoencoder.from_pretrained(our_source(source)), None
    imported = import_checkpoint(place, name, options)
    return imported.model, imported


def _discriminator(
    imported: Imported | None, keep: bool, writes: Format | None, model: Autoencoder
) -> nn.Module | None:
    found = imported.checkpoint.discriminator if imported else {}
    if not keep:
        if found and imported:
            imported.checkpoint.drop("discriminator (--keep-discriminator carries it)", found)
            imported.dropped.update(imported.checkpoint.dropped)
        return None
    if writes is not None:
        raise UserError(f"--keep-discriminator: a checkpoint of {writes.title} is written without one")
    if not found:
        raise UserError("--keep-discriminator: the source holds none")
    return import_discriminator(found, model.image_channels)


def _twin_check(kind: Format, model: Autoencoder, beside: Mapping[str, object]) -> Check | None:
    twin = kind.twin(model, config_of(model), beside)
    return None if twin is None else compare(model, twin, "in diffusers:")


def _check_same(model: Autoencoder, again: Autoencoder) -> None:
    state = {key: value for key, value in model.state_dict().items() if ".window." not in key}
    read = {key: value for key, value in again.state_dict().items() if ".window." not in key}
    ema = {key for key in state if ".ema_" in key or key.endswith(".initialized")}
    odd = same_tensors({key: value for key, value in state.items() if key not in ema or key in read}, read)
    if odd:
        raise UserError(f"not verified, nothing is written: read again, {', '.join(odd)} differ")


def _check_target(target: Path, writes: Format | None) -> None:
    if writes is not None and writes.suffixes and target.suffix not in writes.suffixes:
        raise UserError(f"{target}: {writes.title} is written to a file that ends in {', '.join(writes.suffixes)}")
    is_folder = writes is None or not writes.suffixes
    if is_folder and target.is_file():
        raise UserError(f"{target} is a file: expected a folder")
    if target.is_dir() and any(target.iterdir()) and not (is_folder and (target / CONFIG).is_file()):
        raise UserError(f"{target}: a folder that holds no model, it is not replaced; choose another name")


@contextmanager
def _whole_or_nothing(target: Path) -> Iterator[Path]:
    """A place in a hidden neighbour that is moved to ``target`` at the end, and removed if anything fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    hidden = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=target.parent))
    try:
        place = hidden / target.name
        yield place
        if target.is_dir():
            os.replace(target, hidden / "replaced")
        os.replace(place, target)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
