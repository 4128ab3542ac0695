"""Soft assignment equals the dense computation, in value and gradient, without holding N x K."""

import importlib.util
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from smalti.nn import _chunks, _triton_ready
from smalti.nn.soft_assignment import assign_codes, path, soft_assign


def dense(logits):
    """log-partition, entropy, mean probability of softmax(logits), the plain way."""
    log_p = logits.log_softmax(dim=1)
    return logits.logsumexp(dim=1), -(log_p.exp() * log_p).sum(dim=1), log_p.exp().mean(dim=0)


def random(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


def results(assignment):
    return assignment.log_partition, assignment.entropy, assignment.mean_probability


@pytest.mark.parametrize("chunk", [1, 3, 7, 100, None])
@pytest.mark.parametrize("tile", [1, 2, 5, None])
def test_gradients_are_exact_for_any_chunk_and_tile(chunk, tile):
    inputs = (random(7, 3), random(5, 3))
    assert torch.autograd.gradcheck(lambda u, v: results(soft_assign(u, v, chunk=chunk, tile=tile)), inputs)


@pytest.mark.parametrize("chunk", [1, 4, 9, None])
@pytest.mark.parametrize("tile", [1, 4, None])
@pytest.mark.parametrize("temperature", [0.01, 0.5])
def test_equals_dense_computation(chunk, tile, temperature):
    z, codebook = random(9, 4), random(6, 4)
    logits = -torch.cdist(z, codebook).square() / temperature
    expected = dense(logits)
    actual = results(assign_codes(z, codebook, temperature=temperature, chunk=chunk, tile=tile))
    torch.testing.assert_close(actual[1:], expected[1:])
    # The log-partition lacks |z|^2 / T, so its gradient is compared through the other two results.
    torch.testing.assert_close(actual[0], expected[0] + z.square().sum(dim=1) / temperature)
    weights = [torch.randn(9), torch.randn(6)]
    for ours, theirs in zip(
        torch.autograd.grad(actual[1:], [z, codebook], weights),
        torch.autograd.grad(expected[1:], [z, codebook], weights),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_nothing_of_size_n_times_k_is_saved():
    count, codes = 300, 400
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        assignment = assign_codes(random(count, 2), random(codes, 2), temperature=0.1)
        loss = assignment.entropy.mean() - assignment.mean_probability.square().sum()
    assert max(saved) <= 3 * max(count, codes)
    assert sum(saved) <= 20 * (count + codes)
    loss.backward()


def test_float32_error_is_small_at_low_temperature():
    z = torch.nn.functional.normalize(torch.randn(64, 8, dtype=torch.float64), dim=1)
    codebook = torch.nn.functional.normalize(torch.randn(512, 8, dtype=torch.float64), dim=1)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        leaves = [value.to(dtype).requires_grad_() for value in (z, codebook)]
        assignment = assign_codes(*leaves, temperature=0.01)
        mean = assignment.mean_probability
        loss = assignment.entropy.mean() + (mean * (mean + 1e-5).log()).sum()
        gradients.append(torch.autograd.grad(loss, leaves))
    for single, double in zip(*gradients, strict=True):
        assert (single - double).norm() / double.norm() < 2e-5


def test_narrow_inputs_and_autocast_compute_in_float32():
    z, codebook = random(5, 3, dtype=torch.float32), random(4, 3, dtype=torch.float32)
    plain = assign_codes(z, codebook, temperature=0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = assign_codes(z, codebook, temperature=0.01)
        gradient = torch.autograd.grad(cast.entropy.sum(), z)[0]
    assert torch.equal(plain.entropy, cast.entropy)
    assert torch.equal(gradient, torch.autograd.grad(plain.entropy.sum(), z)[0])
    assert assign_codes(z.bfloat16(), codebook.bfloat16(), temperature=1.0).entropy.dtype == torch.float32


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match=r"temperature=0\.0"):
        assign_codes(random(2, 2), random(2, 2), temperature=0.0)


@pytest.mark.parametrize("codes", [5, 128, 300, 384])
@pytest.mark.parametrize("tile", [None, 130, 256])
def test_indices_are_the_first_of_the_largest_logits(codes, tile):
    queries, keys = torch.randint(-2, 3, (40, 2)).double(), torch.randint(-2, 3, (codes, 2)).double()
    found = soft_assign(queries, keys, chunk=7, tile=tile).indices
    assert torch.equal(found, (queries @ keys.T).argmax(dim=1))


def test_several_problems_of_one_shape_are_one_call():
    u, v = random(3, 6, 2), random(3, 5, 2)
    together = soft_assign(u, v)
    apart = [soft_assign(*pair) for pair in zip(u, v, strict=True)]
    for name in ("indices", "log_partition", "entropy", "mean_probability"):
        assert torch.equal(getattr(together, name), torch.stack([getattr(one, name) for one in apart]))
    assert torch.autograd.gradcheck(lambda u, v: results(soft_assign(u, v)), (u, v))


@pytest.mark.parametrize("chunk", [1, 37, 64, None])
@pytest.mark.parametrize("tile", [None, 50])
def test_results_in_float32_do_not_depend_on_the_cut(chunk, tile):
    u, v = random(64, 8, dtype=torch.float32), random(200, 8, dtype=torch.float32)

    def all_of(**cut):
        found = results(soft_assign(20 * u, v, **cut))
        weights = [torch.linspace(-1, 1, len(value)) for value in found]
        return [*found, *torch.autograd.grad(found, (u, v), weights)]

    for ours, theirs in zip(all_of(chunk=chunk, tile=tile), all_of(chunk=64), strict=True):
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def saved_elements(count, codes, channels=4):
    saved = []
    z, codebook = (torch.randn(size, channels, requires_grad=True) for size in (count, codes))
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        assign_codes(z, codebook, temperature=0.1)
    return sum(saved)


def test_what_is_saved_grows_with_n_plus_k_and_not_with_their_product():
    base, more_tokens, more_codes, both = (saved_elements(*size) for size in ((64, 48), (128, 48), (64, 96), (128, 96)))
    assert both - base == (more_tokens - base) + (more_codes - base)
    assert both <= 2 * base


PEAK = """
import resource, sys, torch
from smalti.nn.soft_assignment import assign_codes
torch.set_num_threads(1)
count, codes = int(sys.argv[1]), int(sys.argv[2])
def step(count, codes):
    z, codebook = (torch.nn.functional.normalize(torch.randn(n, 8), dim=1).requires_grad_() for n in (count, codes))
    found = assign_codes(z, codebook, temperature=0.01)
    (found.entropy.mean() - found.mean_probability.square().sum()).backward()
step(64, 64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step(count, codes)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.parametrize(
    ("count", "codes", "limit"),
    [(8192, 4096, 32), pytest.param(65536, 262144, 1024, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])],
)
def test_peak_memory_stays_far_below_n_times_k(count, codes, limit):
    command = [sys.executable, "-c", PEAK, str(count), str(codes)]
    mib = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert mib < limit < count * codes * 4 / 2**20 / 3


@pytest.mark.slow  # nothing chooses them by itself
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler itself
def test_compiled_chunks_equal_plain_ones():
    if not _chunks.has_cpp_compiler():
        pytest.skip("no C++ compiler")
    u, v = random(40, 4, dtype=torch.float32), random(300, 4, dtype=torch.float32)
    weights = [torch.randn(40), torch.randn(40), torch.randn(300)]
    plain, compiled = (results(soft_assign(u, v, chunk=16, kernel=kernel)) for kernel in ("eager", "compiled"))
    torch.testing.assert_close(compiled, plain)
    gradients = [torch.autograd.grad(found, (u, v), weights) for found in (compiled, plain)]
    torch.testing.assert_close(*gradients)


def test_without_a_compiler_plain_chunks_take_over_with_a_message(monkeypatch, caplog):
    _triton_ready.forget()
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "no-such-compiler")
    u, v = random(4, 2), random(3, 2)
    with caplog.at_level(logging.WARNING, logger="smalti"):
        found = [soft_assign(u, v, kernel="compiled") for _ in range(2)]
    assert torch.equal(found[0].entropy, soft_assign(u, v, kernel="eager").entropy)
    assert [record.message for record in caplog.records].count(caplog.records[0].message) == 1
    assert "C++ compiler" in caplog.text


@pytest.mark.parametrize("cut", [{"chunk": 0}, {"tile": -1}, {"kernel": "fast"}])
def test_cut_and_kernel_are_checked(cut):
    with pytest.raises(ValueError, match=str(next(iter(cut.values())))):
        soft_assign(random(2, 2), random(2, 2), **cut)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"expected \(N, d\) and \(K, d\)"):
        soft_assign(random(2, 3), random(2, 2))


def test_no_token_gives_empty_results():
    found = soft_assign(random(0, 2), random(3, 2))
    assert found.entropy.shape == (0,)
    assert torch.equal(found.mean_probability, torch.zeros(3, dtype=torch.float64))


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_triton_kernels_obey_their_laws():
    """In a process of their own: the interpreter must be chosen before triton is imported, and torch imports it."""
    laws = Path(__file__).with_name("triton_laws.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(laws)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stdout
    assert re.fullmatch(r"\d\d+ passed in .*", done.stdout.splitlines()[-1])  # none is skipped


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_triton_cannot_run_chunks_take_over_with_a_message(monkeypatch, caplog, dtype):
    _triton_ready.forget()
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    u, v = random(4, 2, dtype=dtype), random(3, 2, dtype=dtype)
    with caplog.at_level(logging.WARNING, logger="smalti"):
        found = soft_assign(u, v, kernel="triton")
    assert torch.equal(found.entropy, soft_assign(u, v, kernel="eager").entropy)
    assert "no Triton kernel" in caplog.text
    assert path(u.device, dtype, 2) == path(u.device, dtype, 2000) == "eager"
    _triton_ready.forget()


def test_path_of_a_device_that_is_not_there_says_so():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert path(torch.device("cuda"), torch.float32, 9).startswith("eager (")
    _triton_ready.forget()
