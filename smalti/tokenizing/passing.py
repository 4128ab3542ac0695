"""The pass: every image once through a tokenizer, shard by shard; killed at any moment it goes on where it was.

A batch never reaches over the end of a shard, so what goes through the network together does not depend on who does
it: any number of processes, killed or not, writes the same bytes.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from smalti.data import ImageSource
from smalti.data.loader import evaluation_batches, to_device
from smalti.engine.lock import FolderLock
from smalti.nn.distributed import is_distributed, rank, world_size
from smalti.outputs import BottleneckOutput
from smalti.registry import UserError
from smalti.tokenizing.job import Job, Share
from smalti.tokens.layout import INDICES
from smalti.tokens.store import TokenStore
from smalti.tokens.writer import Rows, StoreWriter

log = logging.getLogger("smalti")

Array = np.ndarray
Progress = Callable[[int, int], None]
_T = TypeVar("_T")


def tokenize(
    job: Job, out: Path, *, resume: bool = False, progress: Progress = lambda done, of: None
) -> TokenStore | None:
    """Writes the token store of a job, with all ranks of the process group if there is one.

    Args:
        job: what.
        out: the folder; new, or with ``resume`` one of the same job.
        resume: whether to go on with what is there.
        progress: told images done and images in all, of this rank.

    Returns:
        The store, on rank 0; None on others.

    Raises:
        UserError: if it cannot be written, is there already or was begun otherwise, or an image does not fit.
    """
    with writing(job, out, resume) as (writer, remaining):
        mine = remaining[rank() :: world_size()]
        done, of = 0, sum(len(share.items) for share in mine)
        for share in mine:
            make_shard(job, writer, share)
            done += len(share.items)
            progress(done, of)
        if is_distributed():
            torch.distributed.barrier()
        return writer.finish(len(job.shares), job.names) if rank() == 0 else None


@contextmanager
def writing(job: Job, out: Path, resume: bool) -> Iterator[tuple[StoreWriter, list[Share]]]:
    """Within, the folder is this job's; its writer, and the shards that are not there yet.

    Raises:
        UserError: on all ranks, if another process has the folder, or what is there is not of this job.
    """
    writer, every = StoreWriter(out, job.plan()), job.shares
    lock = FolderLock(out)

    def prepare() -> list[int]:
        unprotected = lock.take()
        if unprotected:
            log.warning("%s", unprotected)
        writer.begin(resume)
        return [share.number for share in every if not writer.is_done(share.number)]

    try:
        missing = set(agreed(prepare))
        yield writer, [share for share in every if share.number in missing]
    finally:
        lock.release()


def agreed(work: Callable[[], _T]) -> _T:
    """What ``work`` gives on rank 0, on all ranks; so is what the user did wrong.

    Raises:
        UserError: if it fails on rank 0.
    """
    if not is_distributed():
        return work()
    told: list[Any] = [None, None]
    if rank() == 0:
        try:
            told = [work(), None]
        except (UserError, OSError) as error:
            told = [None, str(error)]
    torch.distributed.broadcast_object_list(told)
    if told[1] is not None:
        raise UserError(told[1])
    found: _T = told[0]
    return found


def make_shard(job: Job, writer: StoreWriter, share: Share) -> None:
    """Encodes the images of a shard and writes it.

    Raises:
        UserError: naming an image that does not fit.
    """
    writer.write(share.number, share.grid, _rows(job, share))


def _rows(job: Job, share: Share) -> Rows:
    """The shard in batches: values of all views, numbers and columns of their images."""
    source = _Chosen(job.source, share.items)
    together = max(1, job.batch_size // len(job.framing.names))
    for batch in evaluation_batches(source, job.framing, together):  # type: ignore[arg-type]
        places = batch["index"].tolist()
        items = [share.items[place] for place in places]
        images, names = batch["image"].flatten(0, 1), [job.names[item] for item in items]
        grid = tuple(side // job.model.factor for side in images.shape[-2:])
        if grid != share.grid:
            raise UserError(f"{names[0]}: its size has changed while the store was being made")
        per_image = len(images) // len(items)
        chunks = [
            _encoded(job.model, images[first : first + job.batch_size], names[first // per_image])
            for first in range(0, len(images), job.batch_size)
        ]
        values = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
        yield values, items, source.taken(places)


def _encoded(model: Any, images: torch.Tensor, name: str) -> dict[str, Array]:
    """Tokens or moments of images uint8 (B, C, H, W).

    Raises:
        UserError: naming the first image, if what comes out is not finite.
    """
    device = next(model.parameters()).device
    with torch.inference_mode():
        output: BottleneckOutput = model.encode(to_device({"image": images}, device)["image"])
    if output.posterior is not None:
        found = {"mean": output.posterior.mean, "logvar": output.posterior.logvar}
    elif output.indices is not None:
        found = {INDICES: output.indices}
    else:
        found = {"latent": output.latent}
    if not all(bool(torch.isfinite(value).all()) for value in (output.latent, *found.values())):
        raise UserError(f"{name} or one after it: its latent is not finite; the model's weights are spoilt")
    return {name: (value if name == INDICES else value.float()).cpu().numpy() for name, value in found.items()}


class _Chosen(ImageSource):
    """Some items of a source: their images; what else they have is kept until it is taken."""

    def __init__(self, source: ImageSource, items: Sequence[int]) -> None:
        self._source, self._items = source, items
        self._waiting: dict[int, Mapping[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self._source[self._items[index]]
        others = {name: value for name, value in item.items() if name != "image"}
        for name, value in others.items():
            if isinstance(value, Image.Image) or (hasattr(value, "ndim") and value.ndim):
                raise UserError(f"column {name!r} has images or arrays: a token store keeps numbers and text")
        self._waiting[index] = {name: _plain(value) for name, value in others.items()}
        return {"image": item["image"]}

    def taken(self, indices: Sequence[int]) -> dict[str, list[Any]]:
        """The columns of items that were read, which are forgotten."""
        rows = [self._waiting.pop(index) for index in indices]
        return {name: [row[name] for row in rows] for name in rows[0]}


def _plain(value: Any) -> Any:
    """A number of numpy or torch as one of Python."""
    return value.item() if hasattr(value, "item") else value
