"""The seeded order in which samples are seen: one endless stream of positions, cut into micro-batches.

Position p belongs to epoch p // n and is element p % n of that epoch's own permutation; its augmentation depends on
(seed, epoch, index) alone. So a batch is a function of its number: the stream can be entered anywhere, shared among
any number of ranks and made by any number of workers, and it is always the same stream.
"""

import logging
import os
import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from functools import partial
from itertools import count
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from smalti.data import MASK_COLUMNS, ImageSource, UnreadableImageError
from smalti.data._streaming import Rows, StreamedBatches
from smalti.data.transforms import Transform
from smalti.explain import explain
from smalti.registry import UserError

log = logging.getLogger("smalti")

Columns = dict[str, Any]


class SampleStream:
    """The endless stream of samples of a source: position -> (epoch, index).

    Args:
        size: number of items n of the source.
        seed: every epoch draws its permutation from (seed, epoch).
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def __getitem__(self, position: int) -> tuple[int, int]:
        """Epoch and index of the sample at ``position`` >= 0."""
        epoch, offset = divmod(position, self.size)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self.permutation(epoch)
        return epoch, int(self._order[offset])

    def permutation(self, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The order of ``epoch``, int64 with shape (n,).

        Sorted raw words of PCG64: numpy keeps that stream for ever, which it does not promise for ``permutation``.
        """
        words = np.random.PCG64(np.random.SeedSequence([self.seed, epoch])).random_raw(self.size)
        return np.argsort(words, kind="stable").astype(np.int64)


class BatchLoader:
    """Micro-batches of the endless stream for one rank of several.

    Micro-batch k of rank r holds positions [(k * world_size + r) * batch_size, + batch_size): with the same global
    batch, several ranks see together what one would see alone. An item that cannot be decoded is replaced by the next
    readable one in the order of the source, whatever the worker. Global random generators are neither read nor moved.

    Args:
        source: where items come from.
        transform: crop and flip; a batch needs images of one size.
        batch_size: samples of one micro-batch on this rank.
        seed: of order and augmentation.
        rank: which part of every global batch is ours.
        world_size: number of ranks.
        workers: processes that decode ahead; 0 decodes where the batch is asked for.

    Raises:
        UserError: if the source has no item.
    """

    def __init__(
        self,
        source: ImageSource,
        transform: Transform,
        *,
        batch_size: Annotated[int, Field(ge=1)],
        seed: Annotated[int, Field(ge=0)],
        rank: Annotated[int, Field(ge=0)] = 0,
        world_size: Annotated[int, Field(ge=1)] = 1,
        workers: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        for name, value, least in (("batch_size", batch_size, 1), ("seed", seed, 0), ("workers", workers, 0)):
            if value < least:
                raise ValueError(f"{name}={value!r}: expected at least {least}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank={rank!r}: expected 0 <= rank < world_size={world_size!r}")
        if not len(source):
            raise UserError("the data source has no image")
        self.batch_size = batch_size
        self.workers = workers
        self._named: set[int] = set()
        self._dataset = _MicroBatches(source, transform, batch_size, seed, rank, world_size)

    def batches(self, start: int = 0) -> Iterator[Columns]:
        """Micro-batches ``start``, ``start + 1``, ... without end; images are uint8, see ``to_device``.

        Workers live as long as the iterator: close it (``contextlib.closing``) or drop it.

        Returns:
            Batches with ``index`` and ``position`` int64 (B,), and the columns of the source: images as uint8
            (B, C, H, W), ``image`` among them unless its items are none; arrays as (B, ...), numbers as (B,), text as a
            list.

        Raises:
            UserError: if images of one batch differ in size, or if none can be read.
        """
        streamed = getattr(self._dataset.source, "streamed", False)
        loader = DataLoader(
            self._dataset.streamed(start) if streamed else self._dataset,
            batch_size=None,
            sampler=None if streamed else _Counter(start),
            num_workers=self.workers,
            prefetch_factor=2 if self.workers else None,
            worker_init_fn=_init_worker if self.workers else None,
            generator=torch.Generator(),  # its own, because a loader without one draws from the global generator
        )
        iterator: Any = iter(loader)
        try:
            for batch, unreadable in iterator:
                self._name_once(unreadable)
                if isinstance(batch, UserError):
                    raise batch
                yield batch
        except GeneratorExit:
            raise
        except BaseException:
            _end_workers(iterator)  # one may wait for data that never comes
            raise
        finally:
            del iterator, loader  # the last references: workers are told to stop and joined here

    def _name_once(self, unreadable: Mapping[int, str]) -> None:
        for index, reason in unreadable.items():
            if index not in self._named:
                self._named.add(index)
                log.warning("item %d cannot be read, the next one takes its place: %s", index, reason)


class _MicroBatches(Dataset[Any]):
    """Number k -> micro-batch k of one rank and what could not be read for it.

    Both travel from a worker as values: so does a mistake of the user, whose message a worker would bury.
    """

    def __init__(
        self, source: ImageSource, transform: Transform, batch_size: int, seed: int, rank: int, world_size: int
    ) -> None:
        self.source = source
        self.transform = transform
        self.batch_size = batch_size
        self.stream = SampleStream(len(source), seed)
        self.rank = rank
        self.world_size = world_size

    def __getitem__(self, number: int) -> tuple[Columns | UserError, dict[int, str]]:
        return self._batch(number, self._sample)

    def streamed(self, start: int) -> StreamedBatches:
        """The micro-batches from ``start`` of a source that is a stream."""
        return StreamedBatches(self._of_stream, self.source, self.stream.seed, start)  # type: ignore[arg-type]

    def _of_stream(self, rows: Rows, number: int) -> tuple[Columns | UserError, dict[int, str]]:
        return self._batch(number, partial(self._row, rows))

    def _batch(
        self, number: int, sample: Callable[[int, dict[int, str]], Columns]
    ) -> tuple[Columns | UserError, dict[int, str]]:
        start = (number * self.world_size + self.rank) * self.batch_size
        unreadable: dict[int, str] = {}
        try:
            samples = [sample(position, unreadable) for position in range(start, start + self.batch_size)]
            return _collate(samples), unreadable
        except UserError as error:
            return error, unreadable
        except Exception as error:
            return _described(error, f"micro-batch {number} cannot be put together"), unreadable

    def _sample(self, position: int, unreadable: dict[int, str]) -> Columns:
        epoch, index = self.stream[position]
        item, index, rng = _next_readable(self.source, index, f"{self.stream.seed}/{epoch}", unreadable)
        return self._made(item, rng, index, position)

    def _row(self, rows: Rows, position: int, unreadable: dict[int, str]) -> Columns:
        item, found = rows.readable(position, unreadable)
        epoch, index = divmod(found, rows.size)
        return self._made(item, random.Random(f"{self.stream.seed}/{epoch}/{index}"), index, position)

    def _made(self, item: Columns, rng: random.Random, index: int, position: int) -> Columns:
        return {**_transformed(item, self.transform, rng), "index": index, "position": position}


class _Counter(Sampler[int]):
    """start, start + 1, ..."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return count(self.start)


def _end_workers(iterator: Any) -> None:
    """Ends the workers of a loader at once, where they understand SIGTERM; elsewhere torch does it, in seconds."""
    if sys.platform == "linux":
        for worker in getattr(iterator, "_workers", ()):
            worker.terminate()


def _described(error: BaseException, what: str) -> UserError:
    """An error of anybody's code as one of the user's; its traceback goes along, between processes too."""
    found = UserError(f"{what}: {explain(error)}")
    found.add_note("".join(traceback.format_exception(error)))
    return found


def _read(source: ImageSource, index: int, rng: random.Random | None = None) -> Columns:
    """Item ``index``, whoever wrote the source; as it draws it where ``rng`` is given.

    Raises:
        UnreadableImageError: if it says so.
        UserError: for anything else that goes wrong, with the item's number, and its name if it has one.
    """
    draw = getattr(source, "draw", None)  # a source from elsewhere need not have it
    try:
        return source[index] if rng is None or draw is None else draw(index, rng)
    except (UserError, UnreadableImageError):
        raise
    except (Exception, SystemExit) as error:
        names = getattr(source, "names", ())
        name = f" ({names[index]})" if isinstance(names, Sequence) and index < len(names) else ""
        raise _described(error, f"item {index}{name} of {type(source).__name__} cannot be read") from error


def evaluation_batches(
    source: ImageSource, transform: Transform, batch_size: int, rank: int = 0, world_size: int = 1
) -> Iterator[Columns]:
    """Every item once, in order: rank r takes items r, r + world_size, ...

    A batch ends early where the size of the images changes (of the arrays, where items are no images), so whole images
    of different sizes come one by one; the last batch may be smaller. An item that cannot be decoded is named in the
    log and left out. A random crop depends on the index alone.

    Args:
        source: where items come from.
        transform: crop and flip.
        batch_size: largest number of samples in a batch.
        rank: which part of the items is ours.
        world_size: number of ranks.

    Returns:
        Batches with the columns that ``BatchLoader`` gives; ``position`` equals ``index``.
    """
    samples: list[Columns] = []
    for index in range(rank, len(source), world_size):
        try:
            item = _read(source, index)
        except UnreadableImageError as error:
            log.warning("left out: %s", error)
            continue
        values = _transformed(item, transform, random.Random(f"evaluation/{index}"))
        if samples and (len(samples) == batch_size or _shapes(samples[0]) != _shapes(values)):
            yield _collate(samples)
            samples = []
        samples.append({**values, "index": index, "position": index})
    if samples:
        yield _collate(samples)


def to_device(batch: Columns, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Columns:
    """Moves a batch and turns its uint8 images into numbers there: a quarter of the traffic.

    Args:
        batch: columns as a loader gives them.
        device: where to.
        dtype: of the images; other columns keep theirs.

    Returns:
        The same columns; images with shape (B, C, H, W) in [-1, 1], or in [0, 1] for ``mask``, ``alpha``, ``weights``.
    """
    moved = {}
    for name, value in batch.items():
        if not isinstance(value, Tensor):
            moved[name] = value
            continue
        tensor = value.to(device, non_blocking=True)
        if tensor.dtype == torch.uint8:
            tensor = tensor.to(dtype)  # in place from here: one allocation of a batch, not three
            tensor = tensor.div_(255) if name in MASK_COLUMNS else tensor.div_(127.5).sub_(1)
        moved[name] = tensor
    return moved


def _next_readable(
    source: ImageSource, index: int, key: str, unreadable: dict[int, str]
) -> tuple[Columns, int, random.Random]:
    """Item ``index``, or the next one that can be read, its index and its randomness; notes what was ``unreadable``."""
    for step in range(len(source)):
        other = (index + step) % len(source)
        rng = random.Random(f"{key}/{other}")
        try:
            return _read(source, other, rng), other, rng
        except UnreadableImageError as error:
            unreadable[other] = str(error)
    raise UserError(f"none of {len(source)} images can be read; the last: {unreadable[other]}")


def _transformed(item: Columns, transform: Transform, rng: random.Random) -> Columns:
    images = {name: value for name, value in item.items() if isinstance(value, Image.Image)}
    if images:
        return {**item, **transform(images, rng)}
    if isinstance(transform, Transform) and transform != Transform():
        raise UserError(f"transform: {transform}: these items are no images ({', '.join(item)}); leave it out")
    return item


def _shapes(sample: Columns) -> list[tuple[int, ...]]:
    """Of the image; of an item that is none, of all its arrays."""
    arrays = [sample["image"]] if "image" in sample else sample.values()
    return [tuple(value.shape) for value in arrays if isinstance(value, (Tensor, np.ndarray))]


def _collate(samples: list[Columns]) -> Columns:
    """Stacks the columns: tensors and arrays with shape (B, ...), numbers (B,), text as a list."""
    return {name: _stack(name, [sample[name] for sample in samples]) for name in samples[0]}


def _stack(name: str, values: list[Any]) -> Any:
    if isinstance(values[0], str):
        return values
    if isinstance(values[0], np.ndarray):
        values = [torch.from_numpy(value) for value in values]
    if not isinstance(values[0], Tensor):
        whole = all(isinstance(value, int) for value in values)
        return torch.tensor(values, dtype=torch.int64 if whole else torch.float32)
    if any(value.shape != values[0].shape for value in values):
        sizes = sorted({_words(value) for value in values})
        raise UserError(
            f"column {name!r} differs in size within one batch ({', '.join(sizes[:3])}): choose a crop, or batch_size 1"
        )
    return torch.stack(values)


def _words(value: Sized) -> str:
    return " x ".join(str(side) for side in getattr(value, "shape", ()))


def _init_worker(worker: int) -> None:
    """Keeps a worker alive through the signal that asks its whole process group to stop.

    The main process still wants batches until it has saved. So Ctrl-C is ignored, and SIGTERM unless it comes from the
    main process itself, and SIGHUP; a worker whose main process is gone notices that within seconds, torch sees to it.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if sys.platform == "linux":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        continue
    os._exit(0)
