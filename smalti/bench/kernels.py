"""Where the time of a run goes: kernels of a GPU, or operations on a CPU, by class."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# The first pattern that fits decides: convolutions are matrix products too, and their copies have names of their own.
CLASSES = (
    ("quantizer", r"_rows_(for|back)ward|_keys_(for|back)ward|_nearest|_SoftAssign|argmax|ArgMax"),
    ("optimizer", r"adam|multi_tensor|_foreach|lerp|rmsprop"),
    ("attention", r"attention|flash|fmha|softmax"),
    ("norm", r"(group|layer|batch|instance)_?norm|RowwiseMoments|_gn_|_moments"),
    ("copy", r"copy|contiguous|clone|aten::(cat|to|pad)$|CatArray|nchwToNhwc|nhwcToNchw|transpose|Memcpy|Memset|fill_"),
    ("convolution", r"conv|fprop|dgrad|wgrad|implicit"),
    ("matrix product", r"gemm|::(mm|bmm|addmm|baddbmm|linear|matmul)$|cutlass|splitK|gemv"),
    ("activation", r"silu|sigmoid|gelu|relu|tanh"),
    ("resampling", r"upsample|interpolate|pool|index|gather|embedding"),
)
OTHERS = "elementwise and others"


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One kernel or operation: its name and class, milliseconds, and its share of all."""

    name: str
    kind: str
    milliseconds: float
    share: float


def kind_of(name: str) -> str:
    """The class of a kernel.

    Example:
        >>> kind_of("sm90_xmma_fprop_implicit_gemm_bf16"), kind_of("aten::native_group_norm"), kind_of("aten::mul")
        ('convolution', 'norm', 'elementwise and others')
    """
    return next((kind for kind, pattern in CLASSES if re.search(pattern, name, re.IGNORECASE)), OTHERS)


def profiled(run: Callable[[], object], device: "torch.device") -> list[Kernel]:
    """All kernels of one run, the longest first; on a CPU all operations, by the time of their own."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it writes when it starts and stops
    import torch
    from torch.profiler import ProfilerActivity, profile

    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as record:
        run()
        if on_gpu:
            torch.cuda.synchronize()
    times = {
        event.key: (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1000
        for event in record.key_averages()
        if event.device_type.name == ("CUDA" if on_gpu else "CPU")
    }
    total = sum(times.values()) or 1.0
    found = [
        Kernel(name=name, kind=kind_of(name), milliseconds=time, share=time / total)
        for name, time in times.items()
        if time > 0
    ]
    return sorted(found, key=lambda kernel: -kernel.milliseconds)


def by_kind(kernels: list[Kernel]) -> dict[str, tuple[float, float]]:
    """Class -> milliseconds and share, the longest first."""
    found: dict[str, tuple[float, float]] = {}
    for kernel in kernels:
        time, share = found.get(kernel.kind, (0.0, 0.0))
        found[kernel.kind] = (time + kernel.milliseconds, share + kernel.share)
    return dict(sorted(found.items(), key=lambda entry: -entry[1][0]))
