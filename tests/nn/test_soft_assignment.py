"""Soft assignment equals the dense computation, in value and gradient, without holding N x K."""

import pytest
import torch

from smalti.nn.soft_assignment import assign_codes, soft_assign


def dense(logits):
    """log-partition, entropy, mean probability of softmax(logits), the plain way."""
    log_p = logits.log_softmax(dim=1)
    return logits.logsumexp(dim=1), -(log_p.exp() * log_p).sum(dim=1), log_p.exp().mean(dim=0)


def random(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


def results(assignment):
    return assignment.log_partition, assignment.entropy, assignment.mean_probability


@pytest.mark.parametrize("chunk", [1, 3, 7, 100, None])
def test_gradients_are_exact_for_any_chunk(chunk):
    assert torch.autograd.gradcheck(lambda u, v: results(soft_assign(u, v, chunk=chunk)), (random(7, 3), random(5, 3)))


@pytest.mark.parametrize("chunk", [1, 4, 9, None])
@pytest.mark.parametrize("temperature", [0.01, 0.5])
def test_equals_dense_computation(chunk, temperature):
    z, codebook = random(9, 4), random(6, 4)
    logits = -torch.cdist(z, codebook).square() / temperature
    expected = dense(logits)
    actual = results(assign_codes(z, codebook, temperature=temperature, chunk=chunk))
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
