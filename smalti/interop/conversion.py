"""From a foreign checkpoint to one of our models and back, with proof."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from smalti.config import ConfigError, build, config_of
from smalti.interop import Format, ImportOptions
from smalti.interop._backbone import layout_of_ours
from smalti.interop._containers import Checkpoint, read_checkpoint
from smalti.interop._infer import Shapes, infer
from smalti.interop._numbers import one_precision, refuse_odd
from smalti.interop._recognise import AUTO, recognise, refuse_other
from smalti.interop._table import Table, Translation, to_ours, to_theirs, unexplained
from smalti.models import Model
from smalti.models._saved import SavedModel
from smalti.nn.meta import on_meta_device
from smalti.registry import UserError

# Options that change how a model trains and not what it computes: a foreign file cannot hold them.
TRAINING_ONLY = frozenset(
    {
        *("dropout", "class_dropout", "token_dropout", "ffn_dropout", "drop_path"),
        "sample",
        "estimator",
        "codebook_gradient",
        "init",
        "ema",
        "revival",
        "temperature",
        "hard",
        "usage_window",
        "latents",
    }
)
PUBLISHED_HEADS = 8  # of FQGAN's transformers


@dataclass(frozen=True, kw_only=True)
class Imported:
    """An imported model and how it came about.

    Args:
        model: in evaluation mode.
        format: it was read from.
        checkpoint: the file, its containers peeled off.
        dropped: reason -> foreign keys that were left out.
        notes: what someone who goes on with it should know.
        mapped: number of foreign tensors that are in the model.
    """

    model: SavedModel
    format: Format
    checkpoint: Checkpoint
    dropped: dict[str, list[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    mapped: int = 0


def import_checkpoint(path: str | Path, format: str = AUTO, options: ImportOptions | None = None) -> Imported:
    """Reads a checkpoint of another project.

    Args:
        path: a file, or a folder with one.
        format: its format, or ``auto``.
        options: what tensors do not show.

    Raises:
        UserError: if it is damaged, unsafe, of no or another format, or a key is missing, unexpected or of a wrong
            shape; all of them are listed.
    """
    options = options or ImportOptions()
    checkpoint = read_checkpoint(Path(path), options.weights)
    refuse_other(checkpoint.state, checkpoint.config, checkpoint.path)
    kind = recognise(checkpoint.state.keys(), format, checkpoint.path)
    refuse_unasked(options, kind.asks, kind.title)
    table = kind.table(kind.layout(checkpoint.state.keys()))
    weights = [key for key in checkpoint.state if table.why_dropped(key) is None and table.ours(key)]
    refuse_odd(checkpoint.state, weights, checkpoint.path)
    checkpoint.notes += one_precision(checkpoint.state, weights)
    config = config_from(checkpoint, kind, table, options)
    try:
        with on_meta_device():
            model = _built(config)
    except ConfigError as error:
        raise UserError(f"{checkpoint.path}: no network of smalti has these sizes: {error}") from error
    made = to_ours(checkpoint.state, table, model.state_dict())
    if made.problems:
        listed = "\n".join(f"  {line}" for line in made.problems)
        raise UserError(f"{checkpoint.path}: does not fit the layout of {kind.title}:\n{listed}")
    # Own memory: the tensors may be windows onto the file, or onto each other.
    model.load_state_dict({name: value.clone() for name, value in made.state.items()}, assign=True)
    dropped = {**checkpoint.dropped}
    for reason, keys in made.dropped.items():
        dropped[reason] = [*dropped.get(reason, []), *keys]
    mapped = len(checkpoint.state) - sum(map(len, made.dropped.values()))
    return Imported(
        model=model.eval(),
        format=kind,
        checkpoint=checkpoint,
        dropped=dropped,
        notes=(*kind.notes(config), *checkpoint.notes),
        mapped=mapped,
    )


def _built(config: Mapping[str, Any]) -> SavedModel:
    """The model of an inferred configuration, which is of one of our classes that are saved."""
    model = build(config, Model)  # type: ignore[type-abstract]
    if not isinstance(model, SavedModel):
        raise TypeError(f"{config['type']!r} is no model that is saved")
    return model


def refuse_unasked(options: ImportOptions, asks: Collection[str], title: str) -> None:
    """Refuses options that would change nothing.

    Raises:
        UserError: if one is given that means nothing to a format.
    """
    for name in ("heads", "grid", "scaling_factor"):
        value = getattr(options, name)
        if value is not None and name not in asks:
            raise UserError(f"--{name.replace('_', '-')} {value}: has no effect on {title}")


def config_from(checkpoint: Checkpoint, kind: Format, table: Table, options: ImportOptions) -> dict[str, Any]:
    """The configuration of our model for a checkpoint, inferred from its tensors and the configuration beside them.

    Raises:
        UserError: if a tensor that shows a size is missing, with all keys that no rule knows.
    """
    where = str(checkpoint.config_path or checkpoint.path)
    ours = _our_shapes(checkpoint.state, table)
    try:
        other = kind.infer(ours, options)
    except UserError as error:
        raise UserError(f"{checkpoint.path}: {error}") from error
    if other is not None:
        return kind.complete(other, checkpoint.config, options, where)
    layout = kind.layout(checkpoint.state.keys())
    quantized = any(key.startswith("quantize") for key in checkpoint.state)
    shapes = Shapes(ours, table, quantized)
    if layout.levels == 0:
        raise UserError(f"{checkpoint.path}: the encoder has no levels; expected the layout of {kind.title}")
    try:
        config = infer(shapes, layout, options.heads or PUBLISHED_HEADS)
    except UserError as error:
        raise UserError(f"{checkpoint.path}: {error}") from error
    if shapes.missing:
        odd = [f"unexpected {key}" for key in unexplained(checkpoint.state, table)]
        lines = "\n".join(f"  {line}" for line in [*(f"missing {key}" for key in dict.fromkeys(shapes.missing)), *odd])
        raise UserError(f"{checkpoint.path}: its sizes cannot be inferred:\n{lines}")
    return kind.complete(config, checkpoint.config, options, where)


def _our_shapes(state: Mapping[str, Tensor], table: Table) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(rule.take(value).shape)
        for key, value in state.items()
        if table.why_dropped(key) is None
        for name, rule in table.ours(key)
    }


def export_state(model: SavedModel, kind: Format) -> Translation:
    """The state dict of ``model`` under the names of a format.

    Raises:
        UserError: if the format cannot express the model; all reasons are listed.
    """
    config, state = config_of(model), model.state_dict()
    why = kind.misfit(config)
    reasons = [] if why is None else [why]
    if why is None:
        made = to_theirs(state, kind.table(layout_of_ours(state)))
        reasons = [*kind.unsupported(config), *made.problems]
        if not reasons:
            reasons = _differences(made, kind, config)
        if not reasons:
            return made
    listed = "\n".join(f"  {reason}" for reason in reasons)
    raise UserError(f"{kind.title} has no place for this model:\n{listed}")


def _differences(made: Translation, kind: Format, config: Mapping[str, Any]) -> list[str]:
    """What would be another model if the exported tensors were read again."""
    checkpoint = Checkpoint(Path("the exported model"), made.state)
    try:
        table = kind.table(kind.layout(made.state.keys()))
        again = config_from(checkpoint, kind, table, kind.unseen(config))
        for part in ("encoder", "decoder"):
            if part in again:
                again[part]["groups"] = config[part]["groups"]
        with on_meta_device():
            read = config_of(_built(again))
    except UserError as error:
        return [str(error)]
    return _unequal("", _computing(kind.as_read(config)), _computing(read))


def _computing(value: Any) -> Any:
    """A configuration without what only training sees."""
    if isinstance(value, Mapping):
        return {key: _computing(item) for key, item in value.items() if key not in TRAINING_ONLY}
    return [_computing(item) for item in value] if isinstance(value, (list, tuple)) else value


def _unequal(place: str, ours: Any, read: Any) -> list[str]:
    if isinstance(ours, Mapping) and isinstance(read, Mapping):
        keys = dict.fromkeys([*ours, *read])
        return [line for key in keys for line in _unequal(f"{place}.{key}".lstrip("."), ours.get(key), read.get(key))]
    same = json.dumps(ours) == json.dumps(read) or (not ours and not read)
    return [] if same else [f"{place}={ours!r}: it would be read as {read!r}"]
