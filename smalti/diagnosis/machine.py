"""Rules about the machine: data that come too slowly, memory that grows."""

from collections.abc import Iterator
from itertools import pairwise

from smalti.diagnosis.history import View, holds
from smalti.diagnosis.rule import Rule, Sighting

LEAST_GROWTH = 64.0  # MiB: below that allocators and caches grow by themselves
LOOKS = 10


def _limited(view: View) -> Iterator[Sighting]:
    if holds(view.latest("data_wait", 4), lambda share: share > 0.5, 4) and view.step >= 10:
        yield Sighting(evidence={"share of time waiting for data": view("data_wait")})


def _growing(view: View) -> Iterator[Sighting]:
    for name in ("memory", "device_memory"):
        values = view.latest(name, LOOKS)
        rises = [after - before for before, after in pairwise(values)]
        half = len(rises) // 2
        steady = len(rises) >= LOOKS - 1 and sum(rise > 0 for rise in rises) >= len(rises) - 1
        grown = sum(rises)
        gradual = grown - max(rises, default=0.0)  # a single jump is what a validation, a picture or an allocator takes
        if steady and gradual > max(LEAST_GROWTH, 0.1 * values[0]) and sum(rises[half:]) > 0.4 * grown:
            yield Sighting(subject=name, evidence={"MiB": values[-1], "more than ten log steps ago": grown})


RULES = (
    Rule(
        id="data-limited",
        title="Throughput limited by data",
        look=_limited,
        threshold="more than half of the time goes to waiting for data: a step could be twice as fast",
        cause="images are read and cropped more slowly than the network learns from them",
        change="data.workers: more (as many as cores), smaller files, a transform with crop: fast",
    ),
    Rule(
        id="memory-grows",
        title="Memory grows",
        look=_growing,
        patience=2,
        threshold="over ten log steps the memory rose every time but one, by over 64 MiB and a tenth without the "
        "largest rise, as fast at the end as at the beginning: what a validation takes is a jump, what a cache takes "
        "flattens",
        cause="something keeps what it should let go: a list of tensors with their graphs, a cache without bound",
        change="look for it in losses and sources of your own (detach what is kept); data.workers: 0 tells whether it "
        "is the reading",
    ),
)
