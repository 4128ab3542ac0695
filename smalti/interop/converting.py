"""A whole conversion: read, translate, prove, write; nothing is written unless it was proven."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from smalti.config import config_of
from smalti.discriminators import Discriminator
from smalti.interop import Format, ImportOptions
from smalti.interop._discriminator import import_discriminator
from smalti.interop._places import SUFFIXES
from smalti.interop._recognise import AUTO, OURS, format_named
from smalti.interop.conversion import Imported, export_state, import_checkpoint, refuse_unasked
from smalti.interop.opening import foreign_source, our_source, refuse_format
from smalti.interop.verification import Check, check_round_trip, compare, same_tensors
from smalti.models._checkpoint import find_checkpoint
from smalti.models._latents import LatentScale
from smalti.models._pretrained import CONFIG, WEIGHTS, load_model, save_model
from smalti.models._saved import SavedModel
from smalti.models._token_model import TokenModel
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
    trust_code: bool = False,
) -> Conversion:
    """Converts a checkpoint from one format to another.

    Args:
        source: a file or folder; a saved model of ours, a run folder or a Hub repository.
        target: the file or folder to write; what is there is replaced.
        source_format: of ``source``, or ``auto``.
        target_format: a foreign format, or ``smalti``.
        options: what foreign tensors do not show.
        keep_discriminator: carry the discriminator along, to ``target/discriminator``.
        trust_code: whether the configuration of a model of ours may name classes outside smalti.

    Raises:
        UserError: if the source cannot be read or the target format cannot hold it, the conversion is not exact, or an
            option means nothing to the source.
    """
    target = Path(target)
    writes = None if target_format == OURS else format_named(target_format)
    _check_target(target, writes)
    options = options or ImportOptions()
    opened = _open(source, source_format, options, trust_code)
    model, imported = opened.model, opened.imported
    dropped, notes = (dict(imported.dropped), list(imported.notes)) if imported else ({}, [])
    beside = _discriminator_beside(source, imported)
    discriminator = None
    if keep_discriminator:
        discriminator = _discriminator(source, beside, imported, writes, model, trust_code)
    elif beside:
        dropped["discriminator (--keep-discriminator carries it)"] = beside
    checks: list[Check] = []
    tensors = check_round_trip(imported) if imported else 0
    if imported and (check := _twin_check(imported.format, model, imported.checkpoint.config)):
        checks.append(check)
    with _whole_or_nothing(target) as place:
        if writes is None:
            model.save_pretrained(place)
            if discriminator is not None:
                (place / DISCRIMINATOR).mkdir()
                save_model(discriminator, place / DISCRIMINATOR)
            again: SavedModel = SavedModel.from_pretrained(place, trust_code=trust_code)
        else:
            made = export_state(model, writes)
            dropped |= made.dropped
            tensors = tensors or len(made.state)
            writes.write(place, made.state, config_of(model))
            unseen = writes.unseen(config_of(model))
            again = import_checkpoint(place, target_format, replace(unseen, weights="raw")).model
            if not checks and (check := _twin_check(writes, model, {})):
                checks.append(check)
        _check_same(model, again)
        notes += _latents_note(model, again)
        checks.append(compare(model, again, "written and read again:"))
    return Conversion(
        path=target,
        source=imported.format.title if imported else OURS,
        target=writes.title if writes else OURS,
        weights=opened.weights,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        tensors=tensors or len(model.state_dict()),
        dropped=dropped,
        notes=tuple(notes),
        checks=tuple(checks),
        discriminator=discriminator is not None,
    )


@dataclass(frozen=True)
class _Source:
    """What is converted: the model, how it was imported if it is foreign, and which weights it has."""

    model: SavedModel
    imported: Imported | None
    weights: str


def _open(source: str | Path, name: str, options: ImportOptions, trust_code: bool) -> _Source:
    place = foreign_source(source, name)
    if place is not None:
        imported = import_checkpoint(place, name, options)
        return _Source(imported.model, imported, imported.checkpoint.weights)
    refuse_format(source, name)
    refuse_unasked(options, (), "a model of smalti, whose config.json holds it")
    checkpoint = find_checkpoint(source)
    if checkpoint is not None:
        weights = checkpoint.weights(options.weights)
        model: SavedModel = checkpoint.build(SavedModel, weights=weights, trust_code=trust_code)  # type: ignore[type-abstract]
    else:
        if options.weights == "ema":
            raise UserError(f"{source}: --weights ema: a model of smalti holds one set of weights")
        model, weights = SavedModel.from_pretrained(our_source(source), trust_code=trust_code), "raw"
    if not isinstance(model, Autoencoder | TokenModel):
        what = f"a generator of images ({type(model).__name__}) that smalti trained and saved"
        raise UserError(
            f"{source}: {what}: `smalti convert` translates autoencoders and generators of tokens, from and "
            "to formats of other projects; smalti.load and `smalti sample` take this one as it is"
        )
    return _Source(model, None, weights)


def _discriminator_beside(source: str | Path, imported: Imported | None) -> list[str]:
    """Names of the tensors of the source's discriminator, or of its folder; empty if there is none."""
    if imported:
        return [f"{imported.checkpoint.discriminator_place}{key}" for key in imported.checkpoint.discriminator]
    checkpoint = find_checkpoint(source)
    held = checkpoint is not None and checkpoint.has(DISCRIMINATOR)
    return [DISCRIMINATOR] if held or (Path(our_source(source)) / DISCRIMINATOR / CONFIG).is_file() else []


def _discriminator(
    source: str | Path,
    beside: list[str],
    imported: Imported | None,
    writes: Format | None,
    model: SavedModel,
    trust_code: bool,
) -> nn.Module:
    if writes is not None:
        raise UserError(f"--keep-discriminator: a checkpoint of {writes.title} is written without one")
    if not beside or not isinstance(model, Autoencoder):
        raise UserError("--keep-discriminator: the source has no discriminator")
    if imported:
        return import_discriminator(imported.checkpoint.discriminator, model.image_channels)
    checkpoint = find_checkpoint(source)
    if checkpoint is not None:
        return checkpoint.build(Discriminator, DISCRIMINATOR, trust_code=trust_code)  # type: ignore[type-abstract]
    folder = Path(our_source(source)) / DISCRIMINATOR
    files = (folder / CONFIG, folder / WEIGHTS)
    return load_model(Discriminator, *files, trust_code=trust_code)  # type: ignore[type-abstract]


def _latents_note(model: SavedModel, again: SavedModel) -> list[str]:
    """What became of the scale and shift of the latents, if they are not read again as they were."""
    if not isinstance(model, Autoencoder) or not isinstance(again, Autoencoder):
        return []
    kept, read = _scales(model), _scales(again)
    if all(torch.allclose(one, other, rtol=1e-6, atol=1e-6) for one, other in zip(kept, read, strict=True)):
        return []
    if model.latents is None:
        return [f"the model says no scale of its latents; what was written is read with {read[1][0]:.5g}"]
    return ["scale and shift of the latents have no place in this format: note them, as config.json has them"]


def _scales(model: Autoencoder) -> tuple[Tensor, Tensor]:
    """Shift and scale of each channel."""
    zeros = torch.zeros(model.bottleneck.latent_channels, dtype=torch.float64)
    latents = model.latents or LatentScale(shift=(0.0,), scale=(1.0,))
    return zeros + torch.tensor(latents.shift).double(), zeros + torch.tensor(latents.scale).double()


def _twin_check(kind: Format, model: SavedModel, beside: Mapping[str, object]) -> Check | None:
    twin = kind.twin(model, config_of(model), beside)
    return None if twin is None else compare(model, twin, "in diffusers:")


def _check_same(model: SavedModel, again: SavedModel) -> None:
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
    if writes is None and target.suffix in SUFFIXES:
        raise UserError(f"{target}: a model of smalti is a folder; --to says the format of a file")
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
