"""What a token store says of itself: ``store.json``, whose bytes do not depend on who wrote it or when."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from smalti.registry import UserError, shown
from smalti.tokens.layout import Grid, Layout
from smalti.writing import to_json, write_whole

SCHEMA_VERSION = 1
STORE, PLAN = "store.json", "plan.json"

Count = Annotated[int, Field(ge=0, lt=2**48)]
Positive = Annotated[int, Field(ge=1, lt=2**31)]
ColumnType = Literal["int64", "float64", "text"]
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """Whose tokens they are.

    Args:
        name: class of the network and of its bottleneck.
        path: where it was loaded from.
        hash: of its weights, :func:`smalti.nn.hashing.hash_of` of its state.
    """

    name: str
    path: str
    hash: str


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """Which images they are of.

    Args:
        source: the folder, or the source's description.
        items: how many it has, with those that cannot be read.
        options: how they are read.
        names_sha256: of their names and of the sizes of their files.
    """

    source: str
    options: dict[str, Any] = field(default_factory=dict)
    items: Count
    names_sha256: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a store is to be: all that its bytes depend on.

    Args:
        schema_version: of this file.
        tokenizer: whose tokens they are.
        codebooks: index plane -> number of codes, in order; empty for a continuous bottleneck.
        arrays: of a continuous bottleneck: ``mean`` and ``logvar``, or ``latent`` of one without a posterior.
        channels: of these, 0 with codebooks.
        float_type: of their numbers.
        bits: whether tokens are packed, ceil(log2 K) bits each.
        factor: pixels of a position along a side.
        image_channels: of the images.
        image_size: (H, W) of all views; None: images as they are.
        transform: how images were cropped.
        views: names of the views of one image, in order.
        data: which images.
        batch_size: views that went through the network together.
        shard_images: images of a shard.
    """

    schema_version: int = SCHEMA_VERSION
    tokenizer: Tokenizer
    codebooks: dict[str, Annotated[int, Field(ge=1, lt=2**63)]]
    arrays: tuple[str, ...] = ()
    channels: Count = 0
    float_type: Literal["float32", "float16"] = "float32"
    bits: bool = False
    factor: Positive
    image_channels: Positive
    image_size: tuple[Positive, Positive] | None = None
    transform: dict[str, Any]
    views: Annotated[tuple[str, ...], Field(min_length=1)]
    data: DataFacts
    batch_size: Positive
    shard_images: Positive

    def layout(self, grid: Grid) -> Layout:
        """The record of a grid (h, w)."""
        return Layout(
            grid=grid,
            codebooks=self.codebooks,
            arrays=self.arrays,
            channels=self.channels,
            bits=self.bits,
            float_type=self.float_type,
        )


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One file of images of one grid.

    Args:
        grid: (h, w).
        rows: images in it.
        sha256: of its bytes.
    """

    grid: tuple[Positive, Positive]
    rows: Count
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Description(Plan):
    """A finished store.

    Args:
        count: images.
        left_out: images that could not be read.
        columns: name -> type of the other columns.
        files: table -> SHA-256 of its bytes.
        shards: one behind the other.
    """

    count: Count
    left_out: Count
    columns: dict[str, ColumnType]
    files: dict[str, str]
    shards: tuple[Shard, ...]

    @property
    def grids(self) -> tuple[Grid, ...]:
        """The grids (h, w) of the store, in the order of their first images."""
        return tuple(dict.fromkeys(shard.grid for shard in self.shards if shard.rows))


def write_description(folder: Path, what: Plan) -> None:
    """Writes ``store.json`` of a description, or ``plan.json`` of a plan, whole or not at all."""
    name = STORE if isinstance(what, Description) else PLAN
    write_whole(folder / name, to_json(asdict(what)) + "\n")


def read_description(folder: Path) -> Description:
    """The description of the store in a folder.

    Raises:
        UserError: if there is none, it is not finished, damaged, or of another version.
    """
    if not (folder / STORE).is_file():
        raise UserError(f"{folder}: {_absent(folder)}")
    return _read(folder / STORE, Description)


def read_plan(folder: Path) -> Plan | None:
    """The plan of a store that is being made; None if there is none.

    Raises:
        UserError: if it is damaged, or of another version.
    """
    return _read(folder / PLAN, Plan) if (folder / PLAN).is_file() else None


def _absent(folder: Path) -> str:
    if not folder.is_dir():
        return "is a file, expected the folder of a token store" if folder.exists() else "no such folder"
    if (folder / PLAN).is_file():
        return "a token store that is not finished; `smalti tokenize ... --resume` goes on with it"
    return f"no token store: it has no {STORE}"


def _read(path: Path, kind: type[_T]) -> _T:
    from pydantic import TypeAdapter, ValidationError

    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged: {error}") from error
    version = told.get("schema_version") if isinstance(told, Mapping) else None
    if version is None:
        raise UserError(f"{path}: damaged: it has no schema_version")
    if version != SCHEMA_VERSION:
        raise UserError(f"{path}: schema_version={shown(version)}: this smalti reads version {SCHEMA_VERSION}")
    known = {one.name for one in fields(kind)}  # type: ignore[arg-type]
    strange = sorted(set(told) - known)
    if strange:
        raise UserError(f"{path}: damaged: {shown(strange[0])} is no entry of it")
    try:
        return TypeAdapter(kind).validate_python(told)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: damaged: {where}: {first['msg']}") from error


def differences(stored: Plan, now: Plan) -> Iterator[str]:
    """Each entry in which two plans differ, with both values."""
    one, two = _flat(asdict(stored)), _flat(asdict(now))
    for name in dict.fromkeys([*one, *two]):
        if one.get(name) != two.get(name):
            yield f"{name}: {shown(one.get(name))} in the store, {shown(two.get(name))} now"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping) or not value:
        if prefix == "codebooks." and not value:
            return {}
        return {prefix.rstrip("."): list(value) if isinstance(value, tuple) else value}
    found: dict[str, Any] = {}
    for name, inner in value.items():
        found |= _flat(inner, f"{prefix}{name}.")
    return found
