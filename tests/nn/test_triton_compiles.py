"""The Triton kernels compile for compute capability 9.0, and fit it, through the very calls that a GPU would see."""

import importlib.util
import re

import pytest
import torch

from smalti.nn._triton_tiles import NARROW_GRADIENT, SCORES, WIDE_GRADIENT, candidates, width_of

SHARED_MEMORY = 227 * 1024  # what a block may have there
KERNELS = {"statistics", "weighted", "gradient", "largest"}
NORM_KERNELS = {f"_group_norm_{kind}_of_{what}" for kind in ("moments", "sums") for what in ("chunks", "groups")}
NORM_KERNELS |= {"_group_norm_forward", "_group_norm_backward"}

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    """(name, compiled kernel) of everything launched, which is compiled for a driver that is not there, and not run."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    class Absent:
        def get_current_device(self):
            return 0

        def get_current_stream(self, device):
            return 0

        def get_current_target(self):
            return GPUTarget("cuda", 90, 32)

    found = []
    original = JITFunction.run

    def run(self, *args, warmup, **kwargs):
        found.append((self.fn.__name__, original(self, *args, warmup=True, **kwargs)))

    monkeypatch.setattr(driver, "_active", Absent())
    monkeypatch.setattr(JITFunction, "run", run)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    return found


def launch_everything(channels):
    from smalti.nn import _triton_launch

    u, v = torch.randn(1, 40, channels), torch.randn(1, 1, channels)
    saved = (u, v, *(torch.zeros(1, 40) for _ in range(3)))
    _triton_launch.forward(u, v)
    _triton_launch.backward(saved, torch.zeros(1, 40), torch.zeros(1, 40), torch.zeros(1, 1))
    _triton_launch.largest(u[0], v[0], torch.zeros(1))


def check(compiled, kernels=KERNELS):
    assert {name for name, _ in compiled} == kernels
    for name, kernel in compiled:
        assert kernel.asm["cubin"], name
        assert kernel.metadata.shared < SHARED_MEMORY, name


@pytest.mark.parametrize("channels", [8])  # all widths in the slow matrix
def test_kernels_fit_the_shared_memory_of_compute_capability_9(compiled, channels):
    launch_everything(channels)
    check(compiled)


@pytest.mark.parametrize(("precision", "units"), [("ieee", set()), ("tf32x3", {"tf32"}), ("bf16x6", {"bf16"})])
def test_precision_chooses_the_unit(compiled, monkeypatch, precision, units):
    from smalti.nn import _triton_launch

    monkeypatch.setattr(_triton_launch, "PRECISION", precision)
    _triton_launch.largest(torch.randn(40, 8), torch.randn(5, 8), torch.zeros(5))
    [(_, kernel)] = compiled
    products = re.findall(r"mma(?:\.sync|_async)\S*", kernel.asm["ptx"])
    assert {unit for name in products for unit in ("tf32", "bf16") if unit in name} == units
    assert bool(products) == bool(units)


@pytest.mark.parametrize(
    ("channels", "side", "groups", "dtype"),
    [(128, 64, 32, torch.bfloat16), (96, 7, 1, torch.float32), (512, 1, 512, torch.float16)],
)
def test_kernels_of_norms_fit_and_add_without_atomics(compiled, channels, side, groups, dtype):
    from smalti.nn import _triton_norm

    x = torch.zeros(1, channels, side, side, dtype=dtype).to(memory_format=torch.channels_last)
    stats, parameter = torch.zeros(2, 1, groups), torch.zeros(channels)
    _triton_norm.moments(x, groups, 1e-6)
    _triton_norm.forward(x, stats, parameter, parameter, dtype, silu=True)
    _triton_norm.backward(x, x, stats, parameter, parameter, silu=True)
    check(compiled, NORM_KERNELS)
    for name, kernel in compiled:
        assert "atom" not in kernel.asm["ptx"], name
        if channels == 128 and name.endswith("ward"):  # 16 bytes of each thread at a time
            assert re.search(r"ld\.global\S*\.v4\.b32", kernel.asm["ptx"]), name
            assert re.search(r"st\.global\S*\.v4\.b32", kernel.asm["ptx"]), name


def test_few_channels_share_a_kernel():
    assert {width_of(channels) for channels in (3, 8, 9, 16)} == {16}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("precision", ["ieee", "tf32x3", "bf16x6"])
@pytest.mark.parametrize("channels", [16, 18, 33, 64, 65, 128, 129, 256, 257, 300, 528])  # widths, all different
def test_all_tiles_of_all_widths_fit(compiled, monkeypatch, channels, precision):
    from smalti.nn import _triton_launch

    monkeypatch.setattr(_triton_launch, "PRECISION", precision)
    for entry in range(3):
        compiled.clear()
        monkeypatch.setattr(_triton_launch, "_tuned", lambda kind, u, at=entry: candidates(kind, u.shape[-1])[at])
        launch_everything(channels)
        check(compiled)


def test_the_table_is_small():
    assert all(len(set(table)) == len(table) <= 4 for table in (SCORES, NARROW_GRADIENT, WIDE_GRADIENT))
