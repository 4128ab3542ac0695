"""Laws of the Triton kernels, run under TRITON_INTERPRET=1 by test_soft_assignment.py in a process of their own."""

import logging
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from triton.runtime import interpreter

from smalti.nn import _triton_launch, _triton_ready, _triton_tiles
from smalti.nn.code_search import largest_product, nearest_code
from smalti.nn.soft_assignment import _choose, assign_codes, path, soft_assign
from tests.nn.test_soft_assignment import random, results

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def rounded_once(monkeypatch):
    """Products are rounded once here: how often numpy rounds depends on the CPU, and no kernel is to blame."""
    plain = interpreter.InterpreterBuilder.create_dot

    def dot(self, a, b, d, *options):
        if a.data.dtype != np.float32 or b.data.dtype != np.float32:
            return plain(self, a, b, d, *options)
        product = np.matmul(a.data, b.data, dtype=np.float64) + d.data
        return interpreter.TensorHandle(product.astype(d.data.dtype), d.dtype.scalar)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", dot)


@pytest.fixture(autouse=True)
def fresh():
    _triton_ready.forget()
    yield
    _triton_ready.forget()


@pytest.fixture
def as_gpu(monkeypatch):
    """What ``auto`` does on a GPU, here."""
    monkeypatch.setattr(_triton_ready, "is_gpu", lambda device: True)


def problem(groups, count, codes, channels, scale=1.0):
    """u, v with logits of ``scale``, and gradients of log-partition, entropy and mean probability."""
    u, v = random(groups, count, channels), random(groups, codes, channels)
    with torch.no_grad():
        u *= scale / channels**0.5
    return (u, v), [torch.randn(groups, size, dtype=torch.float64) for size in (count, count, codes)]


def everything(leaves, upstream, dtype, kernel):
    """Results and gradients at ``dtype``."""
    leaves = [leaf.detach().to(dtype).requires_grad_() for leaf in leaves]
    found = soft_assign(*leaves, kernel=kernel)
    gradients = torch.autograd.grad(results(found), leaves, [value.to(dtype) for value in upstream])
    return found.indices, [*results(found), *gradients]


def assert_near(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).norm() <= 2e-5 * theirs.norm()


def assert_exact(leaves, upstream, kernel="triton"):
    index, found = everything(leaves, upstream, torch.float32, kernel)
    expected_index, expected = everything(leaves, upstream, torch.float64, "eager")
    assert_near(found, expected)
    assert torch.equal(index, expected_index)
    assert not _triton_ready._failed
    return found


def test_triton_is_what_runs():
    assert _choose("triton", CPU, torch.float32, 5) == "triton"
    assert _choose("auto", CPU, torch.float32, 5) == "eager"


SHAPES = [
    (1, 65, 67, 9), (2, 34, 35, 5), (3, 33, 7, 17), (1, 1, 130, 8), (1, 40, 1, 3), (2, 1, 1, 4),
    (1, 64, 32, 16), (1, 20, 21, 65), (1, 9, 7, 256), (1, 2, 9, 257), (1, 2, 3, 300), (1, 30, 31, 48),
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_results_and_gradients_are_those_of_float64(shape):
    (u, v), upstream = problem(*shape)
    if shape[2] == 1:  # one code: nothing is uncertain, so entropy and the gradients are 0 but for the log-partition's
        index, found = everything((u, v), upstream, torch.float32, "triton")
        _, expected = everything((u, v), upstream, torch.float64, "eager")
        torch.testing.assert_close([value.double() for value in found], expected, rtol=2e-5, atol=1e-6)
        assert not index.any()
    else:
        assert_exact((u, v), upstream)


@pytest.mark.parametrize("precision", ["ieee", "tf32x3"])
def test_both_precisions_reach_every_kernel(monkeypatch, precision):
    """The interpreter computes both in float32; a word that no kernel knows shows that each one is asked."""
    monkeypatch.setattr(_triton_launch, "PRECISION", precision)
    leaves, upstream = problem(1, 20, 33, 18)
    assert_exact(leaves, upstream)
    seen = []
    for name in ("statistics", "weighted", "gradient", "largest"):
        kernel = getattr(_triton_launch.kernels, name)
        monkeypatch.setattr(kernel, "run", recorded(kernel.run, seen))
    everything(leaves, upstream, torch.float32, "triton")
    _triton_launch.largest(torch.randn(3, 4), torch.randn(5, 4), torch.zeros(5))
    assert seen == [precision] * 6


def recorded(run, seen):
    return lambda *args, **kwargs: seen.append(kwargs["precision"]) or run(*args, **kwargs)


def test_full_precision_is_the_default():
    assert _triton_launch.PRECISION == "ieee"


@pytest.mark.parametrize(("channels", "entry"), [(9, 0), (9, 1), (40, 2)])
def test_any_tiles_of_the_table_give_the_same(monkeypatch, entry, channels):
    monkeypatch.setattr(_triton_launch, "_tuned", lambda kind, u: _triton_tiles.candidates(kind, u.shape[-1])[entry])
    leaves, upstream = problem(1, 33, 65, channels)
    found = assert_exact(leaves, upstream)
    again = everything(leaves, upstream, torch.float32, "triton")[1]
    assert all(torch.equal(*pair) for pair in zip(found, again, strict=True))


@pytest.mark.parametrize("processors", [1, 100])
def test_a_walk_may_be_split(monkeypatch, processors):
    monkeypatch.setattr(_triton_tiles, "PROGRAMS", 1)
    monkeypatch.setitem(_triton_tiles.PROCESSORS, "cpu", processors)
    cut = _triton_launch._Cut(torch.zeros(1, 34, 16), torch.zeros(1, 100, 16), _triton_tiles.SCORES[0])
    assert (cut.parts > 1) == (processors == 100)
    assert_exact(*problem(1, 34, 100, 5, scale=20.0))
    queries, keys = whole_numbers(40, 2), whole_numbers(130, 2)
    expected = (queries @ keys.T).argmax(dim=1)
    assert torch.equal(soft_assign(queries, keys, kernel="triton").indices, expected)
    assert torch.equal(_triton_launch.largest(queries, keys, torch.zeros(130)), expected)


def whole_numbers(*shape):
    """Few of them, so that there are many ties, and products without a rounding error."""
    return torch.randint(-2, 3, shape).float()


def test_exact_to_float32_at_low_temperature():
    z = torch.nn.functional.normalize(torch.randn(33, 8, dtype=torch.float64), dim=1)
    codebook = torch.nn.functional.normalize(torch.randn(200, 8, dtype=torch.float64), dim=1)
    gradients = []
    for dtype, kernel in ((torch.float32, "triton"), (torch.float64, "eager")):
        leaves = [value.to(dtype).requires_grad_() for value in (z, codebook)]
        found = assign_codes(*leaves, temperature=0.01, kernel=kernel)
        loss = found.entropy.mean() + (found.mean_probability * (found.mean_probability + 1e-5).log()).sum()
        gradients.append(torch.autograd.grad(loss, leaves))
    assert_near(*gradients)


@pytest.mark.parametrize("shift", [-1000.0, 1000.0])
def test_logits_far_from_zero_do_not_overflow(shift):
    """Rows and codes behind the end of a tile have logit 0 there."""
    (u, v), upstream = problem(1, 5, 7, 3)
    with torch.no_grad():
        u[..., 0], v[..., 0] = 1.0, shift
    index, found = everything((u, v), upstream, torch.float32, "triton")
    expected_index, expected = everything((u, v), upstream, torch.float32, "eager")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(index, expected_index)


def test_what_is_no_number_is_seen():
    (u, v), _ = problem(1, 5, 7, 3)
    with torch.no_grad():
        u[0, 2] = torch.nan
    found = soft_assign(u.float(), v.float(), kernel="triton")
    assert found.entropy.isnan().tolist() == [[False, False, True, False, False]]
    assert found.mean_probability.isnan().all()
    assert 0 <= found.indices.min() <= found.indices.max() < 7
    assert _triton_launch.largest(u[0].detach().float(), v[0].detach().float(), torch.zeros(7)).max() < 7


def test_no_token_and_too_many_channels_are_for_chunks(caplog):
    found = soft_assign(torch.zeros(0, 2), torch.zeros(3, 2), kernel="triton")
    assert found.entropy.shape == (0,)
    assert torch.equal(found.mean_probability, torch.zeros(3))
    assert not caplog.records
    most = _triton_tiles.MOST_CHANNELS
    wide = torch.randn(3, most + 1), torch.randn(2, most + 1)
    with caplog.at_level(logging.WARNING, logger="smalti"):
        found, again = (soft_assign(*wide, kernel="triton") for _ in range(2))
    assert torch.equal(found.entropy, again.entropy)
    assert torch.equal(found.entropy, soft_assign(*wide, kernel="eager").entropy)
    assert [record.message for record in caplog.records] == [
        f"no Triton kernel for soft assignment ({most + 1} channels, at most {most}): plain chunks instead"
    ]


@pytest.mark.parametrize(
    ("count", "codes", "channels"), [(50, 1, 4), (1, 300, 8), (70, 129, 3), (65, 64, 20), (9, 40, 257), (200, 31, 1)]
)
def test_largest_is_that_of_a_dense_search_and_the_first_of_equals(count, codes, channels):
    for make in (whole_numbers, torch.randn):
        z, rows, offset = make(count, channels), make(codes, channels), make(codes)
        assert torch.equal(_triton_launch.largest(z, rows, offset), (z @ rows.T + offset).argmax(dim=1))


def test_codes_are_sought_by_the_kernel(as_gpu, monkeypatch):
    calls = counted(monkeypatch, "largest")
    z, codebook, offset = whole_numbers(40, 3), whole_numbers(70, 3), whole_numbers(70)
    nearest = (z[:, None] - codebook[None]).square().sum(dim=2).argmin(dim=1)
    assert torch.equal(nearest_code(z, codebook), nearest)
    assert torch.equal(nearest_code(z[:1].bfloat16(), codebook.bfloat16()), nearest[:1])
    assert torch.equal(largest_product(z, codebook, offset), (z @ codebook.T + offset).argmax(dim=1))
    assert len(calls) == 4  # the first of them the trial
    assert torch.equal(nearest_code(z.double(), codebook.double()), nearest)
    assert nearest_code(z[:0], codebook).shape == (0,)
    assert len(calls) == 4


def counted(monkeypatch, name):
    calls = []
    original = getattr(_triton_launch, name)

    def call(*args):
        calls.append(args[0].shape[-1])
        return original(*args)

    monkeypatch.setattr(_triton_launch, name, call)
    return calls


def broken(*args, **kwargs):
    raise RuntimeError("out of resource: shared memory\nand more")


@pytest.mark.parametrize("place", ["forward", "backward", "statistics", "weighted", "gradient"])
def test_a_kernel_that_fails_is_replaced_by_chunks_for_good(as_gpu, monkeypatch, caplog, place):
    leaves, upstream = problem(2, 20, 30, 6)
    everything(leaves, upstream, torch.float32, "auto")  # the trial succeeds
    assert path(CPU, torch.float32, 6) == "triton"
    owner = _triton_launch if place in {"forward", "backward"} else _triton_launch.kernels
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, logger="smalti"):
        if owner is _triton_launch:
            patch.setattr(owner, place, broken)
        else:
            patch.setattr(getattr(owner, place), "run", broken)
        found = everything(leaves, upstream, torch.float32, "auto")
    expected = everything(leaves, upstream, torch.float32, "eager")
    assert torch.equal(found[0], expected[0])
    assert_near(found[1], expected[1])
    reason = "RuntimeError: out of resource: shared memory"
    warnings = [record.message for record in caplog.records]
    assert warnings == [
        f"the Triton kernel for soft assignment of 6 channels on cpu failed ({reason}): plain chunks instead"
    ]
    calls = counted(monkeypatch, "forward")
    with caplog.at_level(logging.WARNING, logger="smalti"):
        again = everything(leaves, upstream, torch.float32, "auto")
    assert all(torch.equal(*pair) for pair in zip(again[1], expected[1], strict=True))
    assert not calls
    assert len(caplog.records) == 1
    assert path(CPU, torch.float32, 6) == f"eager ({reason})"
    assert path(CPU, torch.float32, 7) == "triton"


def test_a_failing_search_is_replaced_by_chunks_for_good(as_gpu, monkeypatch, caplog):
    z, codebook = torch.randn(20, 6), torch.randn(30, 6)
    expected = torch.cdist(z, codebook).argmin(dim=1)
    assert torch.equal(nearest_code(z, codebook), expected)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, logger="smalti"):
        patch.setattr(_triton_launch.kernels.largest, "run", broken)
        assert torch.equal(nearest_code(z, codebook), expected)
    calls = counted(monkeypatch, "largest")
    assert torch.equal(nearest_code(z, codebook), expected)
    assert not calls
    assert len(caplog.records) == 1
    assert "for code search of 6 channels on cpu failed (RuntimeError: out of resource" in caplog.text


def test_a_lack_of_memory_is_not_taken_for_a_failing_kernel(as_gpu, monkeypatch):
    def full(*args):
        raise torch.OutOfMemoryError("no memory")

    soft_assign(torch.randn(3, 2), torch.randn(4, 2))
    monkeypatch.setattr(_triton_launch, "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        soft_assign(torch.randn(3, 2), torch.randn(4, 2))
    assert path(CPU, torch.float32, 2) == "triton"


@pytest.mark.parametrize("name", ["forward", "backward"])
def test_wrong_numbers_of_a_trial_are_seen(as_gpu, monkeypatch, caplog, name):
    original = getattr(_triton_launch, name)
    spoiled = lambda *args: tuple(value * (1 + 1e-3) for value in original(*args))  # as TF32 would  # noqa: E731
    monkeypatch.setattr(_triton_launch, name, spoiled)
    u, v = torch.randn(3, 2), torch.randn(4, 2)
    with caplog.at_level(logging.WARNING, logger="smalti"):
        found = soft_assign(u, v)
    assert torch.equal(found.entropy, soft_assign(u, v, kernel="eager").entropy)
    assert path(CPU, torch.float32, 2) == "eager (a trial gave wrong numbers)"
    assert [record.message for record in caplog.records] == [
        "no Triton kernel for soft assignment (a trial gave wrong numbers): plain chunks instead"
    ]


def test_a_trial_runs_in_full_precision_whatever_the_caller_has_switched_on(as_gpu, monkeypatch):
    entered = []

    @contextmanager
    def watched():
        entered.append(torch.is_autocast_enabled("cpu"))
        with torch.autocast("cpu", enabled=False):
            yield

    monkeypatch.setattr(_triton_ready, "full_precision", watched)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        assert path(CPU, torch.float32, 2) == "triton"
    assert entered == [True]


def test_path_says_what_runs(as_gpu, monkeypatch):
    assert path(CPU, torch.float32, 9) == path(CPU, torch.bfloat16, 256) == "triton"
    assert path(CPU, torch.float64, 9) == "eager (it needs float32, not float64)"
    assert path(CPU, torch.float32, 5000).startswith("eager (5000 channels, at most")


def test_the_fastest_tiles_are_found_once(monkeypatch):
    prepared = []
    cost = dict(zip(_triton_tiles.SCORES, (3.0, 1.0, 2.0), strict=True))
    monkeypatch.setattr(_triton_tiles, "_may_time", lambda device: True)
    monkeypatch.setattr(_triton_tiles, "_milliseconds", lambda launch: launch())
    monkeypatch.setattr(_triton_tiles, "_fastest", {})

    def prepare():
        prepared.append(None)
        return cost.__getitem__

    for _ in range(2):
        assert _triton_tiles.chosen("largest", 16, CPU, prepare) == _triton_tiles.SCORES[1]
    assert len(prepared) == 1


@pytest.mark.parametrize("kind", ["statistics", "weighted", "gradient", "largest"])
def test_what_is_timed_runs(monkeypatch, kind):
    monkeypatch.setattr(_triton_launch, "TYPICAL", (40, 50))
    monkeypatch.setattr(
        _triton_launch, "chosen", lambda kind, width, device, prepare: prepare()(_triton_tiles.SCORES[0])
    )
    _triton_launch._tuned(kind, torch.zeros(1, 1, 16))


def test_tiles_that_fail_are_passed_over_unless_all_do():
    def measure(tiles):
        if tiles != _triton_tiles.SCORES[2]:
            raise RuntimeError(f"{tiles.warps} warps")
        return 1.0

    assert _triton_tiles.fastest(_triton_tiles.SCORES, measure) == _triton_tiles.SCORES[2]
    with pytest.raises(RuntimeError, match="4 warps"):
        _triton_tiles.fastest(_triton_tiles.SCORES[:2], measure)
