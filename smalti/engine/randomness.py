"""Keyed randomness: what is drawn depends on where in the run it is drawn, never on what was drawn before.

So a resumed run draws what the uninterrupted one draws, and evaluation, pictures and data workers disturb nothing.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

Key = int | str


def keyed_seed(*key: Key) -> int:
    """A seed of 63 bits for a key of numbers and words.

    >>> keyed_seed(0, "noise", 7) == keyed_seed(0, "noise", 7), keyed_seed(1, 11) == keyed_seed(11, 1)
    (True, False)
    """
    digest = hashlib.blake2b("\x1f".join(map(repr, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def reseed(*key: Key) -> None:
    """Seeds the global generators of torch (all devices), Python and NumPy from a key."""
    seed = keyed_seed(*key)
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # other people's augmentations draw from the global one


def keyed_noise(seed: int, step: int, phase: str, positions: Tensor | Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal noise with shape (B, *shape), float32, each sample's from its own key.

    A sample's noise depends on its position in the endless stream alone, not on the batch, the rank or the number of
    micro-batches it arrives in.

    Args:
        seed: the run's seed.
        step: generator updates completed.
        phase: who draws.
        positions: global positions of the samples in the stream, with shape (B,).
        shape: shape of one sample's noise.
    """
    generator = torch.Generator()
    rows = [int(position) for position in positions]
    noise = torch.empty(len(rows), *shape)
    for row, position in enumerate(rows):
        generator.manual_seed(keyed_seed(seed, "noise", step, phase, position))
        torch.randn(tuple(shape), generator=generator, out=noise[row])
    return noise


@contextmanager
def forked(*key: Key) -> Iterator[None]:
    """Within, global generators are seeded from a key; afterwards they stand where they stood."""
    python, numpy = random.getstate(), np.random.get_state()
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = [torch.cuda.current_device()] if used else []
    with torch.random.fork_rng(devices):
        reseed(*key)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
