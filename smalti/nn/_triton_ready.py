"""Whether the Triton kernels may run, and what happens when one fails: a line in the log, and plain chunks thereafter.

Nothing here imports Triton before it is needed. A kernel is believed only after a small problem came out as it does in
float64 on a CPU.
"""

import importlib.util
import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Literal, TypeVar

import torch
from torch import Tensor

from smalti.nn._triton_tiles import MOST_CHANNELS
from smalti.nn.precision import full_precision

log = logging.getLogger("smalti")
T = TypeVar("T")

Work = Literal["soft assignment", "code search"]

# Error of a trial, relative to the norm. Full float32 gives 1e-7 here, TF32 1e-3.
TOLERANCE = 2e-5

_failed: dict[tuple[Work, torch.device, int], str] = {}


def is_gpu(device: torch.device) -> bool:
    """Whether kernels are the rule there."""
    return device.type == "cuda"


def why_not(work: Work, device: torch.device, dtype: torch.dtype, channels: int) -> str | None:
    """Why the kernels for some work may not run; None if they may. The first call on a device tries them.

    Args:
        work: what they are for.
        device: of the tensors.
        dtype: of the tensors.
        channels: d of the tensors.
    """
    if dtype != torch.float32:
        return f"it needs float32, not {str(dtype).removeprefix('torch.')}"
    if channels > MOST_CHANNELS:
        return f"{channels} channels, at most {MOST_CHANNELS}"
    device = _numbered(device)
    return _failed.get((work, device, channels)) or _why_not_at_all(work, device)


def runs(work: Work, device: torch.device, dtype: torch.dtype, channels: int, *, silent: bool = False) -> bool:
    """Whether the kernels may run, with a line in the log if not; a failure has had its line."""
    reason = why_not(work, device, dtype, channels)
    if reason and not silent and (work, _numbered(device), channels) not in _failed:
        tell(f"no Triton kernel for {work} ({reason}): plain chunks instead")
    return reason is None


def attempt(work: Work, device: torch.device, channels: int, call: Callable[[], T]) -> T | None:
    """What ``call`` returns, or None if a kernel fails: then it is not tried again for these ``channels``.

    Raises:
        torch.OutOfMemoryError: if there is no memory for the tensors; that is no fault of a kernel.
    """
    try:
        return call()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a driver, a compiler or an unknown chip may raise
        reason = _failed[work, _numbered(device), channels] = said(error)
        tell(f"the Triton kernel for {work} of {channels} channels on {device} failed ({reason}): plain chunks instead")
    return None


@cache
def tell(message: str) -> None:
    """Logs a warning, each once."""
    log.warning(message)


def forget() -> None:
    """Makes trials, failures and what was said be as if they had not been, for tests."""
    _failed.clear()
    _why_not_at_all.cache_clear()
    tell.cache_clear()


def _numbered(device: torch.device) -> torch.device:
    if device == torch.device("cuda") and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return device


def said(error: Exception) -> str:
    """The first line of an error, with its type."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@cache
def _why_not_at_all(work: Work, device: torch.device) -> str | None:
    """Why Triton does not work on a device, by trying a small problem once; None if it does."""
    return verdict(device, _try_assignment if work == "soft assignment" else _try_search)


def verdict(device: torch.device, trial: Callable[[torch.device], bool]) -> str | None:
    """Why Triton does not work on a device, by a trial that says whether numbers were right; None if it does."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if not is_gpu(device) and os.environ.get("TRITON_INTERPRET") != "1":
        return "it needs CUDA"
    try:
        # Whatever the caller has switched on (TF32, autocast, inference mode) has no part in a verdict that stays.
        with torch.inference_mode(False), full_precision(), _may_wait(device):
            right = trial(device)
    except Exception as error:  # whatever a driver, a compiler or an unknown chip may raise
        return said(error)
    return None if right else "a trial gave wrong numbers"


@contextmanager
def _may_wait(device: torch.device) -> Iterator[None]:
    """Inside, waiting for a GPU is no error, though the caller may have made it one."""
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(0)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _problem(device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
    """u (1, 37, 3), v (1, 70, 3), gradients of l, H and mean p: in float64 on the CPU, and in float32 on ``device``."""
    shapes = ((1, 37, 3), (1, 70, 3), (1, 37), (1, 37), (1, 70))
    numbers = [torch.arange(1, 1 + math.prod(shape), dtype=torch.float64, device="cpu") for shape in shapes]
    exact = [values.sin().view(shape) for values, shape in zip(numbers, shapes, strict=True)]
    narrow = [value.to(device, torch.float32) for value in exact]
    return [value.cpu().double() for value in narrow], narrow


def _try_assignment(device: torch.device) -> bool:
    from smalti.nn import _triton_launch

    (u, v, *upstream), (queries, keys, *gradients) = _problem(device)
    with torch.enable_grad():
        leaves = u.requires_grad_(), v.requires_grad_()
        log_p = (u @ v.mT).log_softmax(dim=2)
        outputs = [(u @ v.mT).logsumexp(dim=2), -(log_p.exp() * log_p).sum(dim=2), log_p.exp().sum(dim=1)]
        expected = torch.autograd.grad(outputs, leaves, upstream)
    index, maximum, log_sum, entropy, total = _triton_launch.forward(queries, keys)
    found = _triton_launch.backward((queries, keys, maximum, log_sum, entropy), *gradients)
    values = [_triton_launch.LN2 * (maximum + log_sum), entropy, total, *found]
    right = torch.equal(index.cpu(), (u @ v.mT).argmax(dim=2))
    return right and all(_near(*pair) for pair in zip(values, [*outputs, *expected], strict=True))


def _try_search(device: torch.device) -> bool:
    from smalti.nn import _triton_launch

    (z, rows, *_, offset), narrow = _problem(device)
    found = _triton_launch.largest(narrow[0][0], narrow[1][0], narrow[4][0])
    return torch.equal(found.cpu(), (z[0] @ rows[0].T + offset[0]).argmax(dim=1))


def _near(found: Tensor, expected: Tensor) -> bool:
    return bool((found.cpu() - expected).norm() <= TOLERANCE * expected.norm())
