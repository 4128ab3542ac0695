"""The processes that torchrun started: who they are, and where each computes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from smalti.cli._options import device_of

if TYPE_CHECKING:
    import torch

PATIENCE = timedelta(days=7)  # one process may be done with its share long before another; the launcher sees who dies


@contextmanager
def ranks() -> Iterator[int]:
    """Within, the processes that torchrun started know of each other; the number of this one."""
    import torch

    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or torch.distributed.is_initialized():
        yield int(os.environ.get("RANK", "0")) if torch.distributed.is_initialized() else 0
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield torch.distributed.get_rank()
    finally:
        torch.distributed.destroy_process_group()


def device_of_rank(name: str) -> "torch.device":
    """The device of an option; with ``auto`` and several processes each takes a GPU of its own.

    Raises:
        UserError: if there is no such device.
    """
    import torch

    from smalti.nn.distributed import world_size

    several = name == "auto" and world_size() > 1 and torch.cuda.device_count() > 1
    return device_of(f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}" if several else name)
