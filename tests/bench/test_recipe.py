"""A whole step of a recipe: what it counts is what the networks do, and what it says adds up."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smalti.bench.flops import Operations
from smalti.bench.kernels import by_kind, kind_of, profiled
from tests.cli.conftest import smalti_cli  # noqa: F401

LINEAR = 2 * 6 * 5 * 7  # two for each of 6 x 5 x 7 products


@pytest.mark.parametrize(
    ("network", "shape", "forward", "backward"),
    [
        (nn.Linear(5, 7), (6, 5), LINEAR, 2 * LINEAR),
        (nn.Linear(5, 7, bias=False), (6, 5), LINEAR, 2 * LINEAR),
        (nn.Conv2d(4, 6, 3, padding=1), (2, 4, 5, 5), 2 * 2 * 6 * 25 * 36, 4 * 2 * 6 * 25 * 36),
        (nn.Conv2d(4, 6, 3, stride=2, groups=2), (2, 4, 9, 9), 2 * 2 * 6 * 16 * 18, 4 * 2 * 6 * 16 * 18),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (1, 4, 3, 3), 2 * 4 * 9 * 24, 4 * 4 * 9 * 24),
        (nn.GroupNorm(2, 4), (2, 4, 5, 5), 0, 0),
    ],
)
def test_operations_are_those_of_the_formula(
    network: nn.Module, shape: tuple[int, ...], forward: int, backward: int
) -> None:
    x = torch.randn(shape, requires_grad=True)
    with Operations() as there:
        y = network(x)
    with Operations() as back:
        y.sum().backward()
    assert (there.total, back.total) == (forward, backward)
    with torch.inference_mode(), Operations() as alone:
        network(x)
    assert alone.total == forward


def test_attention_counts_two_products_and_five() -> None:
    q, k, v = (torch.randn(1, 2, 6, 8, requires_grad=True) for _ in range(3))
    with Operations() as there:
        y = F.scaled_dot_product_attention(q, k, v)
    with Operations() as back:
        y.sum().backward()
    one = 2 * 2 * 6 * 6 * 8
    assert there.total == 2 * one
    assert back.total in {4 * one, 5 * one}  # the plain form keeps the weights


def test_kernels_have_classes_that_add_up() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.SiLU())
    found = profiled(lambda: network(torch.randn(1, 3, 16, 16)), torch.device("cpu"))
    kinds = by_kind(found)
    assert {"convolution", "norm", "activation"} <= kinds.keys()
    assert sum(share for _, share in kinds.values()) == pytest.approx(1.0)
    assert sum(time for time, _ in kinds.values()) == pytest.approx(sum(kernel.milliseconds for kernel in found))
    assert [kernel.milliseconds for kernel in found] == sorted((k.milliseconds for k in found), reverse=True)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_nhwc", "convolution"),
        ("void cudnn::ops::nchwToNhwcKernel<__nv_bfloat16>", "copy"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::silu_kernel>", "activation"),
        ("nvjet_gemm_128x256", "matrix product"),
        ("_rows_forward", "quantizer"),
        ("void at::native::multi_tensor_apply_kernel<FusedAdam>", "optimizer"),
        ("void at::native::RowwiseMomentsCUDAKernel<float>", "norm"),
        ("pytorch_flash::flash_fwd_kernel", "attention"),
        ("_group_norm_backward", "norm"),
        ("aten::linalg_vector_norm", "elementwise and others"),
    ],
)
def test_names_of_kernels_tell_their_class(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_report_of_a_recipe(smalti_cli) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    words = ["bench", "step", "--recipe", "tiny-vqvae", "--batch", "2", "--size", "16", "--repeats", "1"]
    small = ["--set", "model.encoder.channels=32", "--set", "model.decoder.channels=32"]
    result = smalti_cli(*words, *small, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["recipe"], report["batch"], report["size"], report["precision"]) == (
        "tiny-vqvae",
        2,
        [16, 16],
        "fp32",
    )
    assert report["images_per_second"] == pytest.approx(2000 / report["milliseconds"])
    assert report["gigaflop"] > 0
    assert report["peak_mib"] is None
    assert sum(share for _, share in report["classes"].values()) == pytest.approx(1.0)
    assert len(report["kernels"]) == 10
    text = smalti_cli(*words, *small)
    assert "tiny-vqvae on CPU" in text.stdout
    assert "convolution" in text.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--set", "engine.seed=1"], "--set: needs --recipe"),
        (["--recipe", "tiny-vqvae", "--channels", "32"], "--channels: cannot be used with --recipe"),
        (["--recipe", "tiny-vqvea"], "did you mean 'tiny-vqvae'"),
        (["--recipe", "tiny-biggan-32", "--batch", "2"], "its step needs more than images: 'label'"),
    ],
)
def test_what_it_cannot_measure_is_said(smalti_cli, words: list[str], says: str) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    result = smalti_cli("bench", "step", *words)
    assert result.exit_code == 2
    assert says in result.stderr
