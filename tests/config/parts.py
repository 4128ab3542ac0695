"""Parts of a made-up kind, for the tests of the builder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Protocol, runtime_checkable

from pydantic import Field

from smalti.registry import Part


@runtime_checkable
class Layable(Protocol):
    def lay(self) -> int: ...


class Tile(Part):
    kind = "tile"
    package = "tests.config.tiles"
    stand_ins = (Layable,)


@dataclass(frozen=True)
class Grout:
    width: Annotated[float, Field(gt=0)] = 0.5
    colours: tuple[str, ...] = field(default_factory=tuple)


class Glass(Tile):
    def __init__(
        self,
        size: Annotated[int, Field(ge=1)],
        *,
        shade: Literal["matt", "bright"] = "matt",
        neighbours: Sequence[Tile] = (),
        corners: Mapping[str, Tile] | None = None,
        grout: Grout | None = None,
        ratio: float = 1.0,
        flag: bool = False,
        pair: tuple[int, float] = (1, 1.0),
        path: Path | None = None,
        either: int | Sequence[int] = 1,
    ) -> None:
        if size == 13:
            raise ValueError("size=13: expected any other number")
        self.size, self.shade, self.neighbours, self.corners = size, shade, neighbours, corners
        self.grout, self.ratio, self.flag, self.pair = grout, ratio, flag, pair
        self.path, self.either = path, either


class Foreign:
    """A class that knows nothing of parts."""

    def __init__(self, size: int = 2) -> None:
        self.size = size

    def lay(self) -> int:
        return self.size


def function(value: float, *, power: int = 2) -> float:
    return value**power
