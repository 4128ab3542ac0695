"""How one view of one image lies in a shard: a record of fixed length, its planes one behind the other."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from smalti.registry import UserError
from smalti.tokens.packing import MARGIN, Unpacker, bits_of, narrowest, pack

Array = np.ndarray
Grid = tuple[int, int]
INDICES = "indices"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The record of a grid.

    Args:
        grid: (h, w).
        codebooks: name -> number of codes, in order; empty for a continuous bottleneck.
        arrays: names of what a continuous bottleneck gives, each (channels, h, w).
        channels: of these.
        bits: whether tokens are packed.
        float_type: of the numbers of a continuous bottleneck, ``float32`` or ``float16``.
    """

    grid: Grid
    codebooks: Mapping[str, int]
    arrays: tuple[str, ...] = ()
    channels: int = 0
    bits: bool = False
    float_type: str = "float32"

    @property
    def positions(self) -> int:
        """Tokens of a plane."""
        return self.grid[0] * self.grid[1]

    @cached_property
    def planes(self) -> tuple[tuple[int, int], ...]:
        """First byte of each plane of tokens, and the byte behind it."""
        found, begin = [], 0
        for size in self.codebooks.values():
            length = -(-self.positions * bits_of(size) // 8) if self.bits else self.positions * _width(size)
            found.append((begin, begin + length))
            begin += length
        return tuple(found)

    @cached_property
    def length(self) -> int:
        """Bytes of a record."""
        if self.arrays:
            return len(self.arrays) * self.channels * self.positions * np.dtype(self.float_type).itemsize
        return self.planes[-1][1]

    @property
    def margin(self) -> int:
        """Bytes behind the last record of a file."""
        return MARGIN if self.bits else 0

    @cached_property
    def _types(self) -> list[str]:
        return [narrowest(size) for size in self.codebooks.values()]

    @cached_property
    def _uniform(self) -> np.dtype | None:
        """The type of all planes, where they have one."""
        return np.dtype(self._types[0]) if len(set(self._types)) == 1 and not self.bits else None

    @cached_property
    def _unpacker(self) -> Unpacker:
        starts = [begin for begin, _ in self.planes]
        return Unpacker(
            list(zip(starts, map(bits_of, self.codebooks.values()), strict=True)), self.positions, self.length
        )

    @cached_property
    def token_shape(self) -> tuple[int, int, int]:
        """(G, h, w)."""
        return (len(self.codebooks), *self.grid)

    def write(self, values: Mapping[str, Array]) -> Array:
        """Records uint8 (N, length) of ``indices`` (N, G, h, w), or of arrays (N, C, h, w) of finite numbers.

        Raises:
            UserError: for a number that its type cannot hold.
        """
        if self.arrays:
            return np.concatenate([self._floats(name, values[name]) for name in self.arrays], axis=1)
        indices = values[INDICES]
        planes = []
        for group, (name, size) in enumerate(self.codebooks.items()):
            plane = indices[:, group].reshape(len(indices), -1)
            if plane.size and (plane.min() < 0 or plane.max() >= size):
                raise UserError(f"tokens of {name!r} from {plane.min()} to {plane.max()}: expected 0 to {size - 1}")
            if self.bits:
                planes.append(pack(plane, bits_of(size)))
            else:
                planes.append(np.ascontiguousarray(plane.astype(narrowest(size))).view(np.uint8))
        return np.concatenate(planes, axis=1)

    def _floats(self, name: str, values: Array) -> Array:
        with np.errstate(over="ignore"):
            narrow = values.reshape(len(values), -1).astype(np.dtype(self.float_type).newbyteorder("<"))
        if not np.isfinite(narrow).all():
            raise UserError(f"{name}: numbers that {self.float_type} cannot hold")
        return np.ascontiguousarray(narrow).view(np.uint8)

    def one(self, buffer: Array, begin: int) -> dict[str, Array]:
        """What the record at byte ``begin`` of a file (uint8) holds: ``indices`` (G, h, w), or arrays (C, h, w).

        Tokens of planes of one type are a view of the file, which cannot be written to.
        """
        if self._uniform is not None:
            return {INDICES: np.ndarray(self.token_shape, self._uniform, buffer, begin)}
        return {
            name: value[0] for name, value in self.many(buffer[None, begin : begin + self.length + self.margin]).items()
        }

    def many(self, records: Array) -> dict[str, Array]:
        """What records uint8 (B, length + margin) hold: ``indices`` (B, G, h, w), or arrays (B, C, h, w)."""
        count = len(records)
        if self.arrays:
            values = records.view(np.dtype(self.float_type).newbyteorder("<"))
            values = values.reshape(count, len(self.arrays), self.channels, *self.grid)
            return {name: values[:, number] for number, name in enumerate(self.arrays)}
        if self.bits:
            return {INDICES: self._unpacker.many(records).reshape(count, *self.token_shape)}
        if self._uniform is not None:
            return {INDICES: records.view(self._uniform).reshape(count, *self.token_shape)}
        widest = np.dtype(max(self._types, key=lambda kind: np.dtype(kind).itemsize))
        found = np.empty((count, *self.token_shape), widest)
        for group, ((begin, end), kind) in enumerate(zip(self.planes, self._types, strict=True)):
            plane = np.ascontiguousarray(records[:, begin:end]).view(kind)
            found[:, group] = plane.reshape(count, *self.grid)
        return {INDICES: found}


def _width(size: int) -> int:
    return np.dtype(narrowest(size)).itemsize
