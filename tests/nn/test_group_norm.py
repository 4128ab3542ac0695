"""GroupNorm with SiLU as one kernel: its laws run by the interpreter, and torch's operations where it cannot run."""

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

from smalti.nn import _triton_ready
from smalti.nn import group_norm as module
from smalti.nn.blocks import ResBlock
from smalti.nn.group_norm import group_norm, is_fused, norm_silu, statistics


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_kernels_obey_their_laws():
    """In a process of their own: the interpreter must be chosen before triton is imported, and torch imports it."""
    laws = Path(__file__).with_name("group_norm_laws.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(laws)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 40
    assert "skipped" not in done.stdout


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
    monkeypatch.setattr(_triton_ready, "is_gpu", lambda device: True)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    block = ResBlock(4, 4, groups=2, recompute="activations")
    x = torch.randn(1, 4, 5, 5).to(memory_format=torch.channels_last).requires_grad_()
    with caplog.at_level(logging.WARNING, logger="smalti"):
        block(x).sum().backward()
    [record] = caplog.records
    assert record.message.startswith("no Triton kernel for GroupNorm (")
    assert record.message.endswith("): torch's operations instead")
    module.forget()


def test_formulas_of_the_trial_are_those_of_autograd():
    x, grad = (torch.randn(2, 6, 3, 2, dtype=torch.float64) for _ in range(2))
    weight, bias = (torch.randn(6, dtype=torch.float64) for _ in range(2))
    leaves = [value.clone().requires_grad_() for value in (x, weight, bias)]
    y = F.silu(F.group_norm(leaves[0], 2, leaves[1], leaves[2], 1e-3))
    expected = (y, *torch.autograd.grad(y, leaves, grad))
    torch.testing.assert_close(module._formulas(x, weight, bias, grad, groups=2, eps=1e-3), expected)
