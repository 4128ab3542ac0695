"""Group normalisation (Wu & He, arXiv:1803.08494) with the activation behind it, as one kernel where that pays.

On CUDA torch normalises contiguous memory only: a channels_last image is copied, normalised in float32 under autocast,
activated in another pass and copied back. The Triton kernels of :mod:`smalti.nn._triton_norm` read and write
channels_last as it lies, and keep x and two numbers per group for the backward pass. Everywhere else, and where a
kernel fails, the operations of torch run.
"""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smalti.nn import _triton_ready as ready

log = logging.getLogger("smalti")
T = TypeVar("T")

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Error of a trial, relative to the norm: float32 gives 1e-7.
TOLERANCE = 1e-5

_Key = tuple[Any, ...]
_failed: set[_Key] = set()


def group_norm(
    x: Tensor,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    *,
    silu: bool = False,
    stats: Tensor | None = None,
) -> Tensor:
    """The normalised x with shape (B, C, H, W), or its SiLU.

    One kernel for channels_last images on CUDA, whose result under autocast has autocast's data type, as the
    convolution behind it wants; else torch's operations, one after the other. Differentiable any number of times.

    Args:
        x: with shape (B, C, H, W).
        groups: number of groups; divides C.
        weight: with shape (C,), or None.
        bias: with shape (C,), or None.
        eps: added to the variance.
        silu: whether SiLU follows.
        stats: what :func:`statistics` found for this x, to save finding it again.

    Example:
        >>> group_norm(torch.tensor([1.0, 3.0]).view(1, 2, 1, 1), 1, None, None, 0.0).flatten()
        tensor([-1.,  1.])
    """
    if weight is not None and bias is not None and is_fused(x):
        try:
            output: Tensor = _GroupNorm.apply(x, weight, bias, stats, (groups, eps, silu))  # type: ignore[no-untyped-call]
            return output
        except _KernelError:
            pass
    return _plain(x, groups, weight, bias, eps, silu)


def statistics(x: Tensor, groups: int, eps: float) -> Tensor | None:
    """Mean and 1 / deviation of each group, (2, B, groups) in float32, where the kernels run; elsewhere None.

    Args:
        x: with shape (B, C, H, W).
        groups: number of groups; divides C.
        eps: added to the variance.
    """
    if not is_fused(x):
        return None

    def call() -> Tensor:
        from smalti.nn import _triton_norm

        return _triton_norm.moments(x, groups, eps)

    return _attempt(("forward", *_kind(x, groups)), call)


def norm_silu(x: Tensor, norm: nn.Module) -> Tensor:
    """SiLU behind a normalisation of x (B, C, H, W); where both are one kernel, hooks of ``norm`` do not run.

    Example:
        >>> norm_silu(torch.zeros(1, 2, 1, 1), nn.Identity()).flatten()
        tensor([0., 0.])
    """
    if isinstance(norm, nn.GroupNorm) and is_fused(x):
        return group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps, silu=True)
    return F.silu(norm(x))


def is_fused(x: Tensor) -> bool:
    """Whether the kernels run for x (B, C, H, W): a channels_last image on CUDA, where a trial came out right."""
    return ready.is_gpu(x.device) and _fits(x) and _works(x.device)


def path(device: torch.device, dtype: torch.dtype, *, channels_last: bool) -> str:
    """What normalises images: ``triton``, or ``torch`` and why, for the log of a run.

    The first call for a GPU tries the kernels; one that fails later, for some shape, says so itself.

    Args:
        device: of the images.
        dtype: of the run.
        channels_last: whether that is their memory format.

    Example:
        >>> path(torch.device("cpu"), torch.float32, channels_last=True)
        'torch'
    """
    if not ready.is_gpu(device):
        return "torch"
    if not channels_last:
        return "torch (images are contiguous)"
    if dtype not in DTYPES:
        return f"torch (the kernel has no {str(dtype).removeprefix('torch.')})"
    reason = _why_not(device)
    return "triton" if reason is None else f"torch ({reason})"


class _KernelError(Exception):
    """A kernel failed, which has been said; torch's operations can do without."""


class _GroupNorm(torch.autograd.Function):
    """(x (B, C, H, W), weight (C,), bias (C,), statistics or None, options) -> the shape of x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stats: Tensor | None, options: tuple[int, float, bool]
    ) -> Tensor:
        groups, eps, silu = options
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype

        def call() -> tuple[Tensor, Tensor]:
            from smalti.nn import _triton_norm

            found = _triton_norm.moments(x, groups, eps) if stats is None else stats
            return found, _triton_norm.forward(x, found, weight, bias, dtype, silu=silu)

        # Nothing else is attempted: a checkpoint's pass ends by an exception that save_for_backward raises.
        found = _attempt(("forward", *_kind(x, groups)), call)
        if found is None:
            raise _KernelError
        ctx.save_for_backward(x, weight, bias, found[0])
        ctx.options = options
        return found[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, stats = ctx.saved_tensors
        groups, _, silu = ctx.options

        def call() -> tuple[Tensor, ...]:
            from smalti.nn import _triton_norm

            return _triton_norm.backward(grad, x, stats, weight, bias, silu=silu)

        found: tuple[Tensor | None, ...] | None = None
        if not torch.is_grad_enabled():  # it is where a derivative of this one is wanted
            found = _attempt(("backward", *_kind(x, groups)), call)
        if found is None:
            found = _plain_gradients(grad, (x, weight, bias), ctx.needs_input_grad, ctx.options)
        return *(value if want else None for value, want in zip(found, ctx.needs_input_grad, strict=False)), None, None


def _plain(x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float, silu: bool) -> Tensor:
    y = torch.group_norm(x, groups, weight, bias, eps)
    return F.silu(y) if silu else y


def _plain_gradients(
    grad: Tensor, inputs: tuple[Tensor, ...], wanted: tuple[bool, ...], options: tuple[int, float, bool]
) -> tuple[Tensor | None, ...]:
    """Gradients by torch's operations in float32, to be differentiated again where gradients are enabled."""
    again, (groups, eps, silu) = torch.is_grad_enabled(), options
    if not again:
        inputs = tuple(value.detach().requires_grad_(want) for value, want in zip(inputs, wanted, strict=False))
    with torch.enable_grad(), torch.autocast(grad.device.type, enabled=False):
        x, weight, bias = (value.float() for value in inputs)
        y = _plain(x, groups, weight, bias, eps, silu)
        asked = [value for value, want in zip(inputs, wanted, strict=False) if want]
        found = iter(torch.autograd.grad(y, asked, grad.to(y.dtype), create_graph=again))
    return tuple(next(found) if want else None for want in wanted[:3])


def _fits(x: Tensor) -> bool:
    """Whether x is what the kernels are for; a format of one pixel or one channel is also the contiguous one."""
    return (
        not torch.compiler.is_compiling()
        and x.ndim == 4
        and x.dtype in DTYPES
        and x.numel() > 0
        and type(x) in {Tensor, nn.Parameter}  # not one that a tracer put there
        and x.is_contiguous(memory_format=torch.channels_last)
        and not x.is_contiguous()
    )


def _kind(x: Tensor, groups: int) -> _Key:
    """What a kernel is compiled for: it fails for one of a kind as for another."""
    return x.device, x.dtype, tuple(x.shape), groups


def _attempt(key: _Key, call: Callable[[], T]) -> T | None:
    """What ``call`` returns, or None if a kernel fails: then it is not tried again for this ``key``.

    Raises:
        torch.OutOfMemoryError: if there is no memory for the tensors; that is no fault of a kernel.
    """
    if key in _failed:
        return None
    try:
        return call()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a driver, a compiler or an unknown chip may raise
        if not _failed:  # the others fail alike
            log.warning("a Triton kernel for GroupNorm failed (%s): torch's operations instead", ready.said(error))
        _failed.add(key)
    return None


def _works(device: torch.device) -> bool:
    """Whether the kernels gave right numbers on a device; the first call there tries them, and says if they do not."""
    reason = _why_not(device)
    if reason:
        ready.tell(f"no Triton kernel for GroupNorm ({reason}): torch's operations instead")
    return reason is None


@cache
def _why_not(device: torch.device) -> str | None:
    return ready.verdict(device, _trial)


def _trial(device: torch.device) -> bool:
    """A small problem, both ways, as its formulas say in float64 on a CPU; autograd's hooks see nothing of it."""
    from smalti.nn import _triton_norm

    shapes = ((2, 6, 5, 3), (6,), (6,), (2, 6, 5, 3))
    numbers = [torch.arange(1, 1 + torch.Size(shape).numel(), device="cpu").double().sin() for shape in shapes]
    narrow = [values.view(shape).float() for values, shape in zip(numbers, shapes, strict=True)]
    x, weight, bias, grad = (value.to(device) for value in narrow)
    x = x.contiguous(memory_format=torch.channels_last)
    stats = _triton_norm.moments(x, 3, 1e-6)
    output = _triton_norm.forward(x, stats, weight, bias, torch.float32, silu=True)
    found = (output, *_triton_norm.backward(grad, x, stats, weight, bias, silu=True))
    expected = _formulas(*(value.double() for value in narrow), groups=3, eps=1e-6)
    return all(bool((a.cpu() - b).norm() <= TOLERANCE * b.norm()) for a, b in zip(found, expected, strict=True))


def _formulas(x: Tensor, weight: Tensor, bias: Tensor, grad: Tensor, *, groups: int, eps: float) -> tuple[Tensor, ...]:
    """silu(group_norm(x)) and the gradients of x, weight and bias."""
    (batch, channels), w = x.shape[:2], weight[:, None]
    rows = x.reshape(batch, groups, -1)
    rstd = (rows.var(dim=2, correction=0, keepdim=True) + eps).rsqrt()
    normed = (rows - rows.mean(dim=2, keepdim=True)) * rstd
    by_channel = normed.view(batch, channels, -1)
    z = w * by_channel + bias[:, None]
    s = z.sigmoid()
    slope = grad.reshape(batch, channels, -1) * s * (1.0 + z * (1.0 - s))
    scaled = (w * slope).view(batch, groups, -1)
    along = (scaled * normed).mean(dim=2, keepdim=True)
    grad_x = rstd * (scaled - scaled.mean(dim=2, keepdim=True) - normed * along)
    return (z * s).view(x.shape), grad_x.view(x.shape), (slope * by_channel).sum(dim=(0, 2)), slope.sum(dim=(0, 2))


def forget() -> None:
    """Makes trials, failures and what was said be as if they had not been, for tests."""
    _failed.clear()
    _why_not.cache_clear()
    ready.forget()
