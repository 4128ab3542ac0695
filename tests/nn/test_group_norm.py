"""GroupNorm with SiLU as one kernel: its laws run by the interpreter, and it compiles for a GPU that is not there."""

import importlib.util
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smalti.nn import group_norm as module
from smalti.nn.blocks import ResBlock
from smalti.nn.group_norm import group_norm, is_fused, norm_silu, statistics

SHARED_MEMORY = 227 * 1024  # what a block may have at compute capability 9.0
KERNELS = {
    "_moments_of_chunks",
    "_moments_of_groups",
    "_forward",
    "_sums_of_chunks",
    "_sums_of_groups",
    "_backward",
}
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


@needs_triton
def test_kernels_obey_their_laws():
    """In a process of their own: the interpreter must be chosen before triton is imported, and torch imports it."""
    laws = Path(__file__).with_name("group_norm_laws.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(laws)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "TRITON_INTERPRET": "1"}
    )
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 40
    assert "skipped" not in done.stdout


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


@needs_triton
@pytest.mark.parametrize(
    ("channels", "side", "groups", "dtype"),
    [(128, 64, 32, torch.bfloat16), (96, 7, 1, torch.float32), (512, 1, 512, torch.float16)],
)
def test_kernels_compile_for_compute_capability_9_and_fit_it(compiled, channels, side, groups, dtype):
    from smalti.nn import _triton_norm

    x = torch.zeros(1, channels, side, side, dtype=dtype).to(memory_format=torch.channels_last)
    stats, parameter = torch.zeros(2, 1, groups), torch.zeros(channels)
    _triton_norm.moments(x, groups, 1e-6)
    _triton_norm.forward(x, stats, parameter, parameter, dtype, silu=True)
    _triton_norm.backward(x, x, stats, parameter, parameter, silu=True)
    assert {name for name, _ in compiled} == KERNELS
    for name, kernel in compiled:
        assert kernel.asm["cubin"], name
        assert kernel.metadata.shared < SHARED_MEMORY, name
        assert "atom" not in kernel.asm["ptx"], name
        if (channels, name) == (128, "_forward"):  # 16 bytes of each thread at a time
            assert re.search(r"ld\.global\S*\.v4\.b32", kernel.asm["ptx"]), name


@pytest.mark.parametrize("last", [False, True])
def test_on_a_cpu_torch_computes(last):
    x, layer = torch.randn(2, 6, 4, 3), nn.GroupNorm(3, 6)
    x = x.to(memory_format=torch.channels_last if last else torch.contiguous_format)
    nn.init.normal_(layer.weight)
    assert not is_fused(x)
    assert statistics(x, 3, 1e-5) is None
    assert torch.equal(group_norm(x, 3, layer.weight, layer.bias, 1e-5), layer(x))
    assert torch.equal(group_norm(x, 3, layer.weight, layer.bias, 1e-5, silu=True), F.silu(layer(x)))
    assert torch.equal(norm_silu(x, nn.BatchNorm2d(6)), F.silu(nn.BatchNorm2d(6)(x)))


def test_where_triton_cannot_run_torch_takes_over_with_one_line(monkeypatch, caplog):
    module.forget()
    monkeypatch.setattr(module, "is_gpu", lambda device: True)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    block = ResBlock(4, 4, groups=2, recompute="activations")
    x = torch.randn(1, 4, 5, 5).to(memory_format=torch.channels_last).requires_grad_()
    with caplog.at_level(logging.WARNING, logger="smalti"):
        block(x).sum().backward()
    reason = "it needs CUDA" if importlib.util.find_spec("triton") else "triton is not installed"
    assert [record.message for record in caplog.records] == [
        f"no Triton kernel for GroupNorm ({reason}): torch's operations instead"
    ]
    module.forget()


def test_formulas_of_the_trial_are_those_of_autograd():
    x, grad = (torch.randn(2, 6, 3, 2, dtype=torch.float64) for _ in range(2))
    weight, bias = (torch.randn(6, dtype=torch.float64) for _ in range(2))
    leaves = [value.clone().requires_grad_() for value in (x, weight, bias)]
    y = F.silu(F.group_norm(leaves[0], 2, leaves[1], leaves[2], 1e-3))
    expected = (y, *torch.autograd.grad(y, leaves, grad))
    torch.testing.assert_close(module._formulas(x, weight, bias, grad, groups=2, eps=1e-3), expected)
