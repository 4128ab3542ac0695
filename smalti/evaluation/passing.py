"""The pass: every image once through a tokenizer, under a protocol, measured; it may be killed and gone on with."""

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from smalti.data import ImageSource
from smalti.data._fingerprint import names_hash
from smalti.data.loader import evaluation_batches, to_device
from smalti.evaluation._crops import Framing
from smalti.evaluation._metrics import metrics_of, under_protocol
from smalti.evaluation._pixels import under
from smalti.evaluation.adapters import Adapter, Ours
from smalti.evaluation.intervals import interval
from smalti.evaluation.partial import Partial
from smalti.evaluation.protocol import Protocol
from smalti.evaluation.results import Result, described, versions
from smalti.metrics import Metric
from smalti.metrics._jackknife import HIGH, LOW
from smalti.metrics._kept import KeptFeatures
from smalti.metrics.evaluation import Evaluation, Examination, evaluating
from smalti.nn.distributed import is_distributed, rank, world_size
from smalti.registry import UserError

SAVED_EVERY = 60.0  # seconds
DEAR = 20.0  # features of many images take long to write: at most a twentieth of the time goes there
Progress = Callable[[int, int, float], None]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is to be measured.

    Args:
        adapter: the tokenizer.
        source: images, by names.
        path: where they are, for the result.
        protocol: how.
        device: where it is computed.
        metrics: names; none: the usual ones.
        batch_size: images that are worked on together.
        limit: the first so many images only.
        partial: a folder where a pass that is killed leaves what it has; None: nowhere.
        contents: whether the hash of all files' contents belongs to the result.
        weights: of the network of the metrics of features: ``pretrained``, ``random`` or a path.
        cache: where features of the images are kept for the next tokenizer; None: nowhere.
    """

    adapter: Adapter
    source: ImageSource
    path: str
    protocol: Protocol
    device: torch.device
    metrics: Sequence[str] = ()
    batch_size: int = 8
    limit: int | None = None
    partial: Path | None = None
    contents: bool = False
    weights: str = "pretrained"
    cache: Path | None = None


def measure(
    question: Question,
    progress: Progress = lambda done, of, seconds: None,
    say: Callable[[str], None] = lambda line: None,
) -> Result:
    """Measures all images of all ranks; each rank gets the same result.

    Rank r takes images r, r + ranks, ... What has been measured is kept in ``partial`` once a minute; a pass with the
    same question and the same number of ranks goes on from there, and ends as the uninterrupted one.

    Args:
        question: what.
        progress: told images done, images in all of this rank, and seconds.
        say: told what else happens: damaged files that are made anew.

    Raises:
        UserError: if nothing can be measured, or an image or a reconstruction does not fit.
    """
    has_tokens = bool(question.adapter.codebook_sizes)
    chosen = metrics_of(question.protocol, question.metrics, has_tokens, question.weights)
    total = len(question.source) if question.limit is None else min(question.limit, len(question.source))
    for name, metric in chosen.items():
        fewest = int(getattr(metric, "fewest", 1))  # a metric from elsewhere need not say
        if total < fewest:
            raise UserError(f"metrics: {name} needs at least {fewest} images, there is {total or 'none'}")
    began = time.perf_counter()
    with _keeping(question, say) as kept:
        found = _passed(question, chosen, total, progress, kept)
    rows = sorted(_gathered(found.images), key=lambda row: row["index"])
    if len(rows) < total:
        found = Evaluation(
            values=found.values, images=found.images, left_out={**found.left_out, "images": _lost(rows, total)}
        )
    return Result(
        tokenizer={
            "name": question.adapter.name,
            "origin": question.adapter.origin,
            "class": type(getattr(question.adapter, "model", question.adapter)).__name__,
            "factor": question.adapter.factor,
            **question.adapter.fingerprint(),
        },
        protocol=described(question.protocol),
        data=_data(question),
        samples=len(rows),
        limited=total < len(question.source),
        numbers=dict(found.values),
        intervals=_intervals(rows, found.values),
        cautions={**found.cautions, **found.left_out, **cautions(question.protocol, len(rows))},
        images=rows,
        versions=versions(),
        seconds=time.perf_counter() - began,
    )


def examine_under(
    protocol: Protocol,
    model: torch.nn.Module,
    batches: Iterable[Mapping[str, Any]],
    metrics: Mapping[str, Metric],
    names: Sequence[str] = (),
) -> Evaluation:
    """What metrics find of a tokenizer of ours under a protocol, on batches that have its crop already.

    Args:
        protocol: rounds images and says how metrics are taken.
        model: the tokenizer, where it is.
        batches: ``image`` uint8 with shape (B, C, H, W), and ``index`` (B,).
        metrics: name -> metric.
        names: names of the items of the source, for the rows.

    Raises:
        UserError: if it is no tokenizer, or there is no image.
    """
    if not hasattr(model, "encode"):
        raise UserError(f"validation.protocol: {type(model).__name__} encodes nothing: protocols are for tokenizers")
    adapter = Ours(model, "model", "training")
    device = next(model.parameters(), torch.zeros(())).device
    examination = Examination(under_protocol(protocol, metrics), adapter.codebook_sizes, device, names)
    with evaluating(adapter, device):
        for batch in batches:
            images = to_device(dict(batch), device)["image"]
            examination.feed(batch, under(adapter.see(images, ()), protocol.quantize))
        return examination.result()


def cautions(protocol: Protocol, samples: int) -> dict[str, str]:
    """What is to be said beside all numbers of so many images."""
    if protocol.samples is None or samples >= protocol.samples:
        return {}
    return {"samples": f"{samples:,} images: {protocol.name} is meant for {protocol.samples:,}"}


@contextmanager
def _keeping(question: Question, say: Callable[[str], None]) -> Iterator[KeptFeatures | None]:
    """Within, features of the images are kept where the question says; what was kept stays if all went well."""
    if question.cache is None:
        yield None
        return
    told = f"{question.protocol.hash} {names_hash(question.source)}"
    kept = KeptFeatures(question.cache / hashlib.sha256(told.encode()).hexdigest()[:16], say)
    try:
        yield kept
        kept.close()
    finally:
        kept.discard()


def _passed(
    question: Question, chosen: Mapping[str, Metric], total: int, progress: Progress, kept: KeptFeatures | None
) -> Evaluation:
    adapter, names = question.adapter, question.source.names
    examination = Examination(chosen, adapter.codebook_sizes, question.device, names)
    partial = Partial(question.partial, _key(question, chosen, total)) if question.partial else None
    done = partial.restore(examination) if partial else 0
    mine = max(0, -(-(total - rank()) // world_size()))
    began = saved = time.perf_counter()
    took = 0.0
    with evaluating(adapter, question.device):
        for batch in _batches(question, total, done):
            moved = to_device(dict(batch), question.device)
            called = [names[int(index)] for index in batch["index"].tolist()]
            observation = under(adapter.see(moved["image"], called), question.protocol.quantize)
            examination.feed(batch, replace(observation, kept=kept))
            done = int(batch["index"][-1]) // world_size() + 1
            progress(done, mine, time.perf_counter() - began)
            if partial and time.perf_counter() - saved >= max(SAVED_EVERY, DEAR * took):
                start = time.perf_counter()
                partial.save(examination, done)
                if kept is not None:
                    kept.close()
                saved = time.perf_counter()
                took = saved - start
        result = examination.result()
    if partial:
        partial.forget()
    return result


def _batches(question: Question, total: int, done: int) -> Iterator[Mapping[str, Any]]:
    """Batches of this rank's images behind the first ``done``."""
    part = _Part(question.source, done * world_size(), total)
    framing: Any = Framing(question.protocol)
    for batch in evaluation_batches(part, framing, question.batch_size, rank(), world_size()):
        yield {**batch, "index": batch["index"] + part.first}


class _Part(ImageSource):
    """The items from ``first`` to ``last`` of a source."""

    def __init__(self, source: ImageSource, first: int, last: int) -> None:
        self.whole, self.first, self.last = source, first, last

    def __len__(self) -> int:
        return max(0, self.last - self.first)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.whole[self.first + index]


def _gathered(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    if not is_distributed():
        return list(rows)
    found: list[Any] = [None] * world_size()
    torch.distributed.all_gather_object(found, list(rows))
    return [row for part in found for row in part]


def _lost(rows: Sequence[Mapping[str, Any]], total: int) -> str:
    return f"{total - len(rows)} of {total} images could not be read and are left out"


def _intervals(rows: Sequence[Mapping[str, Any]], values: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Of means over images, and of numbers whose metric tells both ends."""
    found = {}
    for name in values:
        of_images = [row[name] for row in rows if isinstance(row.get(name), float)]
        between = interval(of_images) if of_images else None
        if name + LOW in values and name + HIGH in values:
            between = values[name + LOW], values[name + HIGH]
        if between is not None and all(map(math.isfinite, between)):
            found[name] = between
    return found


def _key(question: Question, chosen: Mapping[str, Metric], total: int) -> str:
    """What must be equal for a pass to be gone on with."""
    adapter = question.adapter
    told = (
        adapter.name,
        adapter.origin,
        sorted(adapter.fingerprint().items()),
        question.protocol.hash,
        list(chosen),
        total,
        world_size(),
        names_hash(question.source),
    )
    return hashlib.sha256(repr(told).encode()).hexdigest()


def _data(question: Question) -> dict[str, Any]:
    found: dict[str, Any] = {
        "path": question.path,
        "images": len(question.source),
        "names_sha256": names_hash(question.source),
    }
    if question.contents:
        found["contents_sha256"] = contents_hash(question.source)
    return found


def contents_hash(source: ImageSource) -> str:
    """SHA-256 of the contents of all files of a folder, in the order of their names.

    Raises:
        UserError: if the source has no files.
    """
    folder = getattr(source, "folder", None)
    if folder is None:
        raise UserError(f"{type(source).__name__} has no files whose contents could be hashed")
    found = hashlib.sha256()
    for name in source.names:
        with open(os.path.join(folder, name), "rb") as file:
            while block := file.read(2**20):
                found.update(block)
    return found.hexdigest()
