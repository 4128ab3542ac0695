"""Results: numbers with everything that decides them beside, as JSON by a schema that is shipped."""

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import torch

from smalti import __version__
from smalti.config import read_json, read_text
from smalti.evaluation.protocol import Protocol
from smalti.registry import UserError, shown
from smalti.writing import html_table, to_json, write_whole

SCHEMA_VERSION = 1
LIBRARIES = ("torch", "numpy", "pillow", "torchmetrics")


@dataclass(frozen=True, kw_only=True)
class Result:
    """One tokenizer under one protocol on one set of images.

    Args:
        tokenizer: ``name``, ``origin``, ``class`` and what its adapter tells it by.
        protocol: ``name``, ``hash``, ``fields`` (what decides numbers) and ``unverified``.
        data: ``path``, ``images`` (how many there are), ``names_sha256`` of names and sizes, and ``contents_sha256`` if
            that was asked for.
        samples: how many images were measured.
        limited: whether that is fewer than there are.
        numbers: name -> value.
        intervals: name -> 95 % interval of the mean over images, where each image has a value.
        cautions: name -> why a number is to be taken with care.
        images: a row for each image: ``index``, ``name`` and its values.
        versions: of smalti, Python and the libraries that numbers depend on.
        seconds: of the pass.
        schema: version of this record.
    """

    tokenizer: Mapping[str, Any]
    protocol: Mapping[str, Any]
    data: Mapping[str, Any]
    samples: int
    limited: bool
    numbers: Mapping[str, float]
    intervals: Mapping[str, Sequence[float]] = field(default_factory=dict)
    cautions: Mapping[str, str] = field(default_factory=dict)
    images: Sequence[Mapping[str, Any]] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    schema: int = SCHEMA_VERSION

    def write(self, path: Path) -> None:
        """Writes it whole or not at all."""
        write_whole(path, to_json(asdict(self)) + "\n")

    def _repr_html_(self) -> str:
        """What a notebook shows of it: each number with its interval, under the name of the protocol."""
        rows = [[name, f"{value:.6g}", _between(self.intervals.get(name))] for name, value in self.numbers.items()]
        caption = f"{self.tokenizer.get('name', '')} under {self.protocol['name']}, {self.samples:,} images"
        return html_table(["", "value", "95 % interval"], rows, caption)

    def worst(self, number: str, count: int) -> list[Mapping[str, Any]]:
        """Rows of the images with the least good finite value: the lowest, or the highest of distances."""
        from smalti.metrics import Metric
        from smalti.registry import names, resolve

        known = [name for name in names(Metric) if number == name or number.startswith(f"{name}_")]
        rising = not known or resolve(max(known, key=len), Metric).higher_is_better is not False
        rows = [row for row in self.images if isinstance(row.get(number), float) and math.isfinite(row[number])]
        return sorted(rows, key=lambda row: row[number], reverse=not rising)[:count]


def _between(interval: Sequence[float] | None) -> str:
    return f"{interval[0]:.6g} to {interval[1]:.6g}" if interval else ""


def described(protocol: Protocol) -> dict[str, Any]:
    """A protocol as results hold it."""
    return {
        "name": protocol.name,
        "hash": protocol.hash,
        "fields": protocol.measuring,
        "unverified": list(protocol.unverified),
    }


def versions() -> dict[str, str]:
    """Of what numbers depend on."""
    found = {"smalti": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        found[name] = torch.__version__ if name == "torch" else metadata.version(name)
    return found


def schema() -> dict[str, Any]:
    """The JSON schema of a result."""
    text = (resources.files("smalti.evaluation") / "schema.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def read_result(path: Path) -> Result:
    """A result that was written, a file or the folder that holds ``evaluation.json``.

    Raises:
        UserError: if there is none, or it is no result of this version.
    """
    place = path / "evaluation.json" if path.is_dir() else path
    data = read_json(read_text(place), str(place))
    if not isinstance(data, dict) or data.get("schema") != SCHEMA_VERSION:
        version = data.get("schema") if isinstance(data, dict) else None
        raise UserError(
            f"{place}: schema={shown(version)}: expected a result of `smalti evaluate`, schema {SCHEMA_VERSION}"
        )
    required = [name for name in schema()["required"] if name not in data]
    if required:
        raise UserError(f"{place}: no {required[0]!r}: expected a result of `smalti evaluate`")
    known = Result.__dataclass_fields__
    return Result(**{name: value for name, value in data.items() if name in known})
