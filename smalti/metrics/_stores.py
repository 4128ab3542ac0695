"""Rows of features that a metric must keep: float32 in memory, and past 200 MiB in temporary files mapped into it."""

import os
import tempfile
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from smalti.registry import UserError

MOST_IN_MEMORY = 200 * 2**20  # bytes
BYTES = 4
CHUNK = 4096  # rows that are copied at once


def spilled(rows: Sequence[Tensor]) -> Tensor:
    """All ``rows``, each float32 with shape (n, d) on the CPU, as one tensor (N, d) in a temporary file.

    The file has no name, or is removed with the tensor.

    Raises:
        UserError: if the temporary folder has no room for it.
    """
    whole = _mapped(sum(map(len, rows)), rows[0].shape[1])
    start = 0
    for part in rows:
        whole[start : start + len(part)] = part
        start += len(part)
    return whole


def in_order(rows: Sequence[Tensor], order: Tensor) -> Tensor:
    """Row ``order[i]`` of all rows as row i: (N, d), in memory or, if that is large, in a temporary file.

    Args:
        rows: float32, each with shape (n, d), in memory or in files.
        order: int64 with shape (N,), each of 0 to N - 1 once.
    """
    rows = [part for part in rows if len(part)]
    if not rows:
        return torch.zeros(0, 0)
    if sum(part.numel() for part in rows) * BYTES <= MOST_IN_MEMORY:
        return torch.cat([part.cpu() for part in rows])[order]
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    whole, start = _mapped(len(order), rows[0].shape[1]), 0
    for part in rows:
        for first in range(0, len(part), CHUNK):
            some = part[first : first + CHUNK].cpu()
            whole[place[start : start + len(some)]] = some
            start += len(some)
    return whole


def _mapped(count: int, width: int) -> Tensor:
    with tempfile.TemporaryFile(prefix="smalti-features-") as file:
        try:
            if hasattr(os, "posix_fallocate"):  # a hole in a full disk would end the process when it is filled
                os.posix_fallocate(file.fileno(), 0, BYTES * count * width)
        except OSError as error:
            need = f"{BYTES * count * width / 2**20:.0f} MiB of features"
            raise UserError(f"no room for {need} in {tempfile.gettempdir()} (TMPDIR): {error}") from error
        return torch.from_numpy(np.memmap(file, dtype=np.float32, mode="r+", shape=(count, width)))
