"""Full precision switches autocast off and leaves everything as it was."""

import pytest
import torch

from smalti.nn.precision import at_least_float32, full_precision


def test_autocast_is_off_inside_and_on_again_after():
    matrix = torch.eye(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with full_precision():
            assert (matrix @ matrix).dtype == torch.float32
        assert (matrix @ matrix).dtype == torch.bfloat16


def test_is_a_decorator_for_many_calls():
    product = full_precision()(lambda: torch.eye(2) @ torch.eye(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert [product().dtype for _ in range(2)] == [torch.float32] * 2


@pytest.mark.parametrize("precision", ["highest", "high"])
def test_tf32_is_off_inside_and_as_before_after(monkeypatch, precision):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        settings = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        with full_precision():
            if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
                assert torch.backends.cuda.matmul.fp32_precision == "ieee"
                assert torch.backends.cudnn.conv.fp32_precision == "ieee"
        assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == settings
    finally:
        torch.set_float32_matmul_precision(before)


def test_only_narrow_dtypes_are_widened():
    expected = {torch.bfloat16: torch.float32, torch.float16: torch.float32, torch.float32: torch.float32}
    for dtype, wide in {**expected, torch.float64: torch.float64}.items():
        assert at_least_float32(torch.zeros(1, dtype=dtype)).dtype == wide
