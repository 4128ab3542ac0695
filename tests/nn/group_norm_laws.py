"""Laws of the GroupNorm kernels, run under TRITON_INTERPRET=1 by test_group_norm.py in a process of their own."""

import logging

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smalti.bottlenecks._adapter import Adapter, AdapterOptions
from smalti.nn import _triton_norm, _triton_ready
from smalti.nn import group_norm as module
from smalti.nn.attention import SpatialAttention
from smalti.nn.blocks import ResBlock
from smalti.nn.group_norm import group_norm, norm_silu
from smalti.nn.norm_act_conv import norm_act_conv

# 1 / (1 + e^-z) is 0 for a very negative z, by way of infinity; numpy, which the interpreter computes with, says so.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp")

EPS = 1e-6
SHAPES = [
    # B, C, H, W, groups, type of x
    (2, 4, 5, 3, 2, torch.float32),
    (1, 16, 9, 7, 16, torch.float32),  # a channel is a group
    (1, 128, 8, 8, 32, torch.float32),
    (1, 96, 7, 11, 32, torch.float32),
    (3, 6, 17, 2, 1, torch.float32),
    (1, 320, 3, 5, 32, torch.float32),  # three tiles of channels, the last one half
    (1, 8, 70, 37, 4, torch.float32),  # chunks of several tiles
    (2, 64, 1, 3, 8, torch.float32),
    (5, 3, 4, 4, 3, torch.float32),
    (1, 128, 6, 6, 64, torch.bfloat16),
    (1, 48, 5, 9, 16, torch.bfloat16),
    (2, 40, 4, 3, 8, torch.float16),
]


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """A CPU counts as a GPU, whose kernels the interpreter runs."""
    monkeypatch.setattr(_triton_ready, "is_gpu", lambda device: True)
    yield
    module._failed.clear()


def problem(batch, channels, height, width, dtype=torch.float32, offset=2.0):
    """x, weight, bias and the gradient of the result."""
    x = (3 * torch.randn(batch, channels, height, width) + offset).to(dtype).to(memory_format=torch.channels_last)
    weight, bias, grad = torch.randn(channels), torch.randn(channels), torch.randn_like(x)
    return [x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), grad]


def plain(x, groups, weight, bias, silu):
    y = F.group_norm(x, groups, weight, bias, EPS)
    return F.silu(y) if silu else y


def near(found, expected, tolerance):
    expected = expected.to(found.device)
    assert (found.double() - expected).norm() <= tolerance * expected.norm()


def kernels(call):
    """What ``call`` returns, having seen that kernels ran."""
    before = count[0]
    result = call()
    assert count[0] > before
    return result


count = [0]
_forward, _backward = _triton_norm.forward, _triton_norm.backward


def _counted(function):
    def run(*args, **kwargs):
        count[0] += 1
        return function(*args, **kwargs)

    return run


_triton_norm.forward, _triton_norm.backward = _counted(_forward), _counted(_backward)


@pytest.mark.parametrize(
    ("shape", "silu"), [*((shape, True) for shape in SHAPES), (SHAPES[0], False), (SHAPES[10], False)], ids=str
)
def test_values_and_gradients_are_those_of_float64(shape, silu):
    *sizes, groups, dtype = shape
    x, weight, bias, grad = problem(*sizes, dtype)
    output = kernels(lambda: group_norm(x, groups, weight, bias, EPS, silu=silu))
    found = kernels(lambda: torch.autograd.grad(output, (x, weight, bias), grad))
    exact = [value.detach().double().requires_grad_() for value in (x, weight, bias)]
    expected = plain(exact[0], groups, *exact[1:], silu)
    expected_gradients = torch.autograd.grad(expected, exact, grad.double())
    assert output.dtype == dtype
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    rounding = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 4e-3}[dtype]
    near(output, expected, rounding)
    for index, (one, other) in enumerate(zip(found, expected_gradients, strict=True)):
        near(one, other, rounding if index == 0 else 2e-6)
        assert one.dtype == (dtype if index == 0 else torch.float32)


@pytest.mark.parametrize("groups", [1, 8])
def test_one_pixel_is_normalised_within_its_groups(groups):
    x, weight, bias, grad = problem(3, 8, 1, 1)
    stats = _triton_norm.moments(x, groups, EPS)
    near(stats[0], x.view(3, groups, -1).double().mean(dim=2), 1e-6)
    exact = [value.detach().double().requires_grad_() for value in (x, weight, bias)]
    expected = plain(exact[0], groups, *exact[1:], True)
    near(_triton_norm.forward(x, stats, weight, bias, x.dtype, silu=True), expected, 1e-6)
    found = _triton_norm.backward(grad, x, stats, weight, bias, silu=True)
    for one, other in zip(found, torch.autograd.grad(expected, exact, grad.double()), strict=True):
        assert (one - other).abs().max() <= 2e-6 * max(1.0, float(other.abs().max()))


def test_statistics_do_not_cancel_far_from_zero():
    x, *_ = problem(1, 8, 30, 40, offset=3e4)
    mean, rstd = _triton_norm.moments(x, 4, EPS)
    groups = x.detach().double().reshape(1, 4, -1)
    near(mean, groups.mean(dim=2), 1e-7)
    near(rstd, (groups.var(dim=2, correction=0) + EPS).rsqrt(), 1e-5)


def test_results_are_the_same_again_and_beside_other_samples(monkeypatch):
    monkeypatch.setattr(_triton_norm, "TILE", 512)

    def run(x, grad):
        x = x.detach().requires_grad_()
        output = group_norm(x, 2, weight, bias, EPS, silu=True)
        return [output, *torch.autograd.grad(output, (x, weight, bias), grad)]

    x, weight, bias, grad = problem(2, 16, 10, 13)
    assert _triton_norm._cut(x).chunks == 3
    first, second, alone = run(x, grad), run(x, grad), run(x[1:2], grad[1:2])
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert all(torch.equal(one[1:2], other) for one, other in zip(first[:2], alone[:2], strict=True))


def test_only_x_and_two_numbers_per_group_are_kept():
    x, weight, bias, _ = problem(2, 16, 9, 9)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda value: kept.append(value) or value, lambda value: value):
        group_norm(x, 4, weight, bias, EPS, silu=True)
    own = {value.data_ptr() for value in (x, weight, bias)}
    assert {value.data_ptr() for value in kept} >= own
    assert sum(value.numel() for value in kept if value.data_ptr() not in own) == 2 * 2 * 4


@pytest.mark.parametrize("silu", [True, False])
def test_second_derivatives_are_those_of_the_plain_form(silu):
    x, weight, bias, grad = problem(2, 4, 3, 3)
    leaves = (x, weight, bias, grad.requires_grad_())

    def penalty(run, leaves):
        x, weight, bias, grad = leaves
        slopes = torch.autograd.grad(run(x, 2, weight, bias), (x, weight, bias), grad, create_graph=True)
        loss = sum(slope.square().sum() for slope in slopes)
        return torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)

    found = kernels(lambda: penalty(lambda *args: group_norm(*args, EPS, silu=silu), leaves))
    exact = [value.detach().double().requires_grad_() for value in leaves]
    for one, other in zip(found, penalty(lambda *args: plain(*args, silu), exact), strict=True):
        near(one, other, 1e-5)


def test_what_is_frozen_gets_no_gradient_and_changes_no_other():
    x, weight, bias, grad = problem(2, 4, 3, 3)
    every = torch.autograd.grad(group_norm(x, 2, weight, bias, EPS, silu=True), (x, weight, bias), grad)
    output = group_norm(x, 2, weight.detach(), bias, EPS, silu=True)
    assert torch.equal(torch.autograd.grad(output, bias, grad)[0], every[2])
    output = group_norm(x.detach(), 2, weight, bias.detach(), EPS, silu=True)
    assert torch.equal(torch.autograd.grad(output, weight, grad)[0], every[1])


def test_a_gradient_of_any_memory_format_is_taken():
    x, weight, bias, grad = problem(2, 4, 3, 5)
    output = group_norm(x, 2, weight, bias, EPS)
    found = [torch.autograd.grad(output, x, given, retain_graph=True)[0] for given in (grad, grad.contiguous())]
    assert torch.equal(*found)
    ones = torch.autograd.grad(output.sum(), weight, retain_graph=True)
    assert torch.equal(ones[0], torch.autograd.grad(output, weight, torch.ones_like(output))[0])


def modules():
    torch.manual_seed(3)
    options = AdapterOptions(out_channels=4, grid=3, layers=1, heads=2, groups=2)
    made = {
        "block": ResBlock(8, 8, groups=2),
        "block with dropout": ResBlock(8, 8, groups=2, dropout=0.5),
        "recomputed activations": ResBlock(8, 8, groups=2, recompute="activations"),
        "recomputed block": ResBlock(8, 8, groups=2, recompute="blocks"),
        "attention": SpatialAttention(8, groups=2),
        "adapter": Adapter(8, options),
    }
    for layer in (part for one in made.values() for part in one.modules() if isinstance(part, nn.GroupNorm)):
        nn.init.normal_(layer.weight)
    return made


def gradients_of(part, x, autocast):
    torch.manual_seed(5)
    leaf = x.detach().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        output = part(leaf)
    weights = torch.linspace(-1, 1, output.numel()).view(output.shape).to(output.dtype)
    return [output, *torch.autograd.grad(output, [leaf, *part.parameters()], weights)]


@pytest.mark.parametrize(
    ("name", "autocast"), [*((name, False) for name in modules()), ("block", True), ("recomputed activations", True)]
)
def test_parts_use_the_kernels_and_equal_the_plain_ones(monkeypatch, name, autocast):
    part = modules()[name].to(memory_format=torch.channels_last)
    x = torch.randn(1, 8, 3, 4).to(memory_format=torch.channels_last)
    found = kernels(lambda: gradients_of(part, x, autocast))
    monkeypatch.setattr(_triton_ready, "is_gpu", lambda device: False)
    expected = gradients_of(part, x, autocast)
    scale = max(float(other.detach().norm()) for other in expected)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        # Of the bias in front of a norm the exact gradient is 0: what there is is rounding, measured by the others.
        assert (one.double() - other).norm() <= (2e-2 if autocast else 1e-5) * max(
            float(other.detach().norm()), 1e-2 * scale
        )


def test_recomputed_activations_find_their_statistics_once(monkeypatch):
    calls = []
    moments = _triton_norm.moments
    monkeypatch.setattr(_triton_norm, "moments", lambda *args: calls.append(1) or moments(*args))
    norm, conv = nn.GroupNorm(2, 4), nn.Conv2d(4, 2, 3)
    x = torch.randn(1, 4, 5, 5).to(memory_format=torch.channels_last).requires_grad_()
    module._works(x.device)
    calls.clear()
    norm_act_conv(x, norm, conv).sum().backward()
    assert len(calls) == 1


def test_contiguous_images_double_precision_and_missing_weights_stay_with_torch():
    before = count[0]
    for x in (torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3).double().to(memory_format=torch.channels_last)):
        layer = nn.GroupNorm(2, 4).to(x.dtype)
        assert torch.equal(norm_silu(x, layer), F.silu(layer(x)))
    x = torch.randn(2, 4, 3, 3).to(memory_format=torch.channels_last)
    module._works(x.device)
    before = count[0]
    assert torch.equal(group_norm(x, 2, None, None, EPS), F.group_norm(x, 2, eps=EPS))
    assert count[0] == before


def failing(*args, **kwargs):
    raise RuntimeError("out of resource: shared memory\nRequired: much")


@pytest.mark.parametrize("where", ["moments", "forward", "backward"])
def test_a_kernel_that_fails_is_replaced_with_one_line(monkeypatch, caplog, where):
    x, weight, bias, grad = problem(2, 4, 3, 3)
    expected = plain(x, 2, weight, bias, True)
    expected_gradients = torch.autograd.grad(expected, (x, weight, bias), grad)
    assert module._works(x.device)
    monkeypatch.setattr(_triton_norm, where, failing)
    with caplog.at_level(logging.WARNING, logger="smalti"):
        for size in (3, 3, 4):
            shaped = problem(2, 4, size, size)[0]
            group_norm(shaped, 2, weight, bias, EPS, silu=True).sum().backward()
        output = group_norm(x, 2, weight, bias, EPS, silu=True)
        found = torch.autograd.grad(output, (x, weight, bias), grad)
    near(output, expected.double(), 1e-6)
    for one, other in zip(found, expected_gradients, strict=True):
        near(one, other.double(), 1e-5)
    assert len(caplog.records) == 1
    assert "out of resource: shared memory" in caplog.text
    assert "Required" not in caplog.text


@pytest.mark.parametrize("recompute", ["nothing", "activations", "blocks"])
def test_a_block_trains_on_where_a_kernel_fails_on_the_way_back(monkeypatch, recompute):
    block = ResBlock(4, 4, groups=2, recompute=recompute).to(memory_format=torch.channels_last)
    x = torch.randn(1, 4, 3, 3).to(memory_format=torch.channels_last).requires_grad_()
    expected = gradients_of(block, x, False)
    monkeypatch.setattr(_triton_norm, "backward", failing)
    for one, other in zip(gradients_of(block, x, False), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_no_memory_is_no_fault_of_a_kernel(monkeypatch):
    x, weight, bias, _ = problem(2, 4, 3, 3)
    assert module._works(x.device)

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(_triton_norm, "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        group_norm(x, 2, weight, bias, EPS)


@pytest.mark.parametrize("trial", [failing, lambda *args, **kwargs: torch.zeros(2, 6, 5, 3)])
def test_kernels_that_fail_a_trial_never_run(monkeypatch, caplog, trial):
    module.forget()
    monkeypatch.setattr(_triton_norm, "forward", trial)
    x, weight, bias, _ = problem(2, 4, 3, 3)
    with caplog.at_level(logging.WARNING, logger="smalti"):
        for _ in range(2):
            assert torch.equal(group_norm(x, 2, weight, bias, EPS), plain(x, 2, weight, bias, False))
    assert len(caplog.records) == 1
    assert "no Triton kernel for GroupNorm (" in caplog.text
    module.forget()
