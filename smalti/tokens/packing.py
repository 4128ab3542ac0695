"""Whole numbers in as few bytes as they need: the narrowest type of a codebook, or ceil(log2 K) bits a token.

Bits are little-endian: token i of a plane lies in bits [i b, (i + 1) b) of the plane, the first bit of a byte is its
lowest. So any token is read by itself, from the bytes around it.
"""

import numpy as np

Array = np.ndarray
MARGIN = 8
"""Bytes behind the last token that a reader may touch."""


def bits_of(size: int) -> int:
    """Bits of a token of a codebook of ``size`` codes.

    >>> [bits_of(size) for size in (1, 2, 1000, 16384, 16385)]
    [1, 1, 10, 14, 15]
    """
    return max(1, (size - 1).bit_length())


def narrowest(size: int) -> str:
    """The narrowest type of the tokens of a codebook of ``size`` codes, little-endian, as numpy spells it.

    >>> [narrowest(size) for size in (256, 257, 2**16, 2**32, 2**32 + 1)]
    ['|u1', '<u2', '<u2', '<u4', '<i8']
    """
    return next((kind for kind, most in (("|u1", 2**8), ("<u2", 2**16), ("<u4", 2**32)) if size <= most), "<i8")


def pack(values: Array, bits: int) -> Array:
    """Tokens (N, n), each of so many bits, as bytes uint8 (N, ceil(n bits / 8)); the bits left over are 0."""
    whole = np.ascontiguousarray(values, dtype="<u8")
    single = np.unpackbits(whole.view(np.uint8).reshape(*whole.shape, 8), axis=-1, bitorder="little")[..., :bits]
    return np.packbits(single.reshape(len(values), -1), axis=-1, bitorder="little")


class Unpacker:
    """Reads the packed planes of a record, all with one gather: words that begin at every byte, shifted and masked.

    Args:
        planes: first byte and bits of each plane.
        count: tokens of a plane.
        length: bytes of a record, without the margin behind it.
    """

    def __init__(self, planes: list[tuple[int, int]], count: int, length: int) -> None:
        starts = [begin * 8 + np.arange(count, dtype=np.int64) * bits for begin, bits in planes]
        masks = [np.full(count, 2**bits - 1, dtype=np.uint64) for _, bits in planes]
        widest = max(bits for _, bits in planes)
        # Up to 7 bits before a token, and the token; the highest bits of the very widest lie in a ninth byte.
        self._kind = np.dtype("<u4" if widest <= 25 else "<u8")
        self._ninth = widest > 57
        self._words = length + MARGIN - self._kind.itemsize + 1
        start = np.concatenate(starts)
        self._begin = (start >> 3).astype(np.intp)
        self._shift = (start & 7).astype(self._kind)
        self._mask = np.concatenate(masks).astype(self._kind)

    def one(self, buffer: Array, begin: int) -> Array:
        """Tokens (planes n,) of the record at byte ``begin`` of a file, uint8; unsigned words of 32 or 64 bits."""
        words: Array = np.ndarray((self._words,), self._kind, buffer, begin, (1,))
        return self._cut(words, buffer[begin:] if self._ninth else buffer)

    def many(self, records: Array) -> Array:
        """Tokens (B, planes n) of records uint8 (B, length + MARGIN)."""
        strides = (records.strides[0], 1)
        return self._cut(np.ndarray((len(records), self._words), self._kind, records, 0, strides), records)

    def _cut(self, words: Array, records: Array) -> Array:
        found: Array = words.take(self._begin, axis=-1)
        found >>= self._shift
        if self._ninth:
            spare = records.take(self._begin + 8, axis=-1).astype(self._kind)
            high = spare << ((64 - self._shift) & np.uint64(63))
            found |= np.where(self._shift > 0, high, np.uint64(0))
        found &= self._mask
        return found
