"""Images of mixed aspect ratios in batches of one size each: every image is cropped to a shape near its own.

An epoch shows every image once, but for fewer than one global batch of them, which chance picks anew in each epoch.
Images are put in order by the epoch's permutation and divided by their nearest shape; those of a shape that fill no
global batch are put together by aspect ratio, and take the shape of the middle one. Batches then come in random order.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from smalti.data import UnreadableImageError
from smalti.registry import UserError

Shape = tuple[int, int]  # height and width
_UNKNOWN: Shape = (1, 1)


def bucket_shapes(size: int, step: int, ratio: float) -> tuple[Shape, ...]:
    """Shapes of about ``size`` squared pixels with sides divisible by ``step``, from tall to wide.

    >>> bucket_shapes(256, 64, 2.0)
    ((320, 192), (256, 256), (192, 320))

    Args:
        size: side of the square among them, divisible by ``step``.
        step: divides all sides.
        ratio: the long side is at most so many times the short one.
    """
    tall = set()
    for width in range(step, size + 1, step):
        height = round(size * size / width / step) * step
        if height <= ratio * width:
            tall |= {(height, width), (width, height)}
    return tuple(sorted(tall, key=lambda shape: (-shape[0] / shape[1], shape)))


def nearest_shape(shapes: Sequence[Shape], size: Shape) -> int:
    """Number of the shape whose aspect ratio is nearest to that of ``size``, as a factor."""
    return min(range(len(shapes)), key=lambda number: abs(math.log(_ratio(shapes[number]) / _ratio(size))))


def sizes_of(source: Any) -> list[Shape]:
    """Height and width of every image of a source; (1, 1) of one that cannot be read.

    Raises:
        UserError: if the source does not know them.
    """
    size_of = getattr(source, "size_of", None)
    if size_of is None:
        raise UserError(
            f"transform.buckets: {type(source).__name__} does not say how large its images are before they are read: "
            "image_folder, webdataset and huggingface do"
        )

    def look(index: int) -> Shape:
        try:
            height, width = size_of(index)
        except UnreadableImageError:
            return _UNKNOWN
        return height, width

    with ThreadPoolExecutor(8) as pool:  # waiting for the file system is most of it
        return list(pool.map(look, range(len(source))))


class BucketStream:
    """The endless stream of samples in buckets: position -> (epoch, index) and the shape of its batch.

    Args:
        sizes: height and width of each image.
        shapes: of the buckets.
        group: samples of a global batch, which have one shape.
        seed: every epoch draws its order from (seed, epoch).

    Raises:
        UserError: if there are fewer images than a global batch has.
    """

    def __init__(self, sizes: Sequence[Shape], shapes: Sequence[Shape], group: int, seed: int) -> None:
        if len(sizes) < group:
            raise UserError(
                f"transform.buckets: {len(sizes)} images do not fill a batch of {group} on all ranks together"
            )
        self.shapes, self.group, self.seed = tuple(shapes), group, seed
        self.size = len(sizes) // group * group
        self._ratios = np.array([math.log(_ratio(size)) for size in sizes])
        self._own = np.array([nearest_shape(self.shapes, size) for size in sizes])
        self._epoch, self._order, self._of = -1, np.empty(0, np.int64), np.empty(0, np.int64)

    def __getitem__(self, position: int) -> tuple[int, int]:
        """Epoch and index of the sample at ``position`` >= 0."""
        epoch, offset = self._enter(position)
        return epoch, int(self._order[offset])

    def shape_of(self, position: int) -> Shape:
        """Height and width of the sample at ``position``; those of one global batch have the same."""
        _, offset = self._enter(position)
        return self.shapes[int(self._of[offset // self.group])]

    def _enter(self, position: int) -> tuple[int, int]:
        epoch, offset = divmod(position, self.size)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order, self._of = self._arranged(epoch)
        return epoch, offset

    def _arranged(self, epoch: int) -> tuple[Any, Any]:
        """Indices (size,) in the order of the epoch, and the number of the shape of each global batch."""
        words = np.random.PCG64(np.random.SeedSequence([self.seed, epoch]))
        order = np.argsort(words.random_raw(len(self._own)), kind="stable")
        groups: list[tuple[Any, int]] = []
        rest: list[Any] = []
        for number in range(len(self.shapes)):
            mine = order[self._own[order] == number]
            whole = len(mine) // self.group * self.group
            groups += [(group, number) for group in mine[:whole].reshape(-1, self.group)]
            rest.append(mine[whole:])
        left = np.concatenate(rest)
        kept = np.argsort(words.random_raw(len(left)), kind="stable")[: len(left) // self.group * self.group]
        left = left[np.sort(kept)]
        left = left[np.argsort(self._ratios[left], kind="stable")]
        for group in left.reshape(-1, self.group):
            middle = self._ratios[group[self.group // 2]]
            number = min(range(len(self.shapes)), key=lambda n: abs(math.log(_ratio(self.shapes[n])) - middle))
            groups.append((group, number))
        drawn = np.argsort(words.random_raw(len(groups)), kind="stable")
        return np.concatenate([groups[n][0] for n in drawn]), np.array([groups[n][1] for n in drawn])


def _ratio(shape: Shape) -> float:
    return shape[0] / shape[1]
