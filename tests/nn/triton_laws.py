"""Laws of the Triton kernels, run under TRITON_INTERPRET=1 by test_soft_assignment.py in a process of their own."""

import torch

from smalti.nn.soft_assignment import _choose, assign_codes, soft_assign
from tests.nn.test_soft_assignment import random, results


def test_triton_is_what_runs():
    assert _choose("triton", torch.device("cpu"), torch.float32) == "triton"


def test_triton_kernels_equal_the_chunks():
    u, v = random(2, 70, 5, dtype=torch.float32), random(2, 130, 5, dtype=torch.float32)
    weights = [torch.randn(2, 70), torch.randn(2, 70), torch.randn(2, 130)]
    found = [soft_assign(3 * u, v, kernel=kernel) for kernel in ("triton", "eager", "triton")]
    gradients = [torch.autograd.grad(results(one), (u, v), weights) for one in found]
    torch.testing.assert_close(results(found[0]), results(found[1]), rtol=1e-5, atol=1e-5)
    assert torch.equal(found[0].indices, found[1].indices)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)
    assert all(torch.equal(*pair) for pair in zip(gradients[0], gradients[2], strict=True))


def test_triton_kernels_take_the_first_of_equal_codes():
    queries, keys = torch.randint(-2, 3, (40, 2)).float(), torch.randint(-2, 3, (150, 2)).float()
    found = soft_assign(queries, keys, kernel="triton").indices
    assert torch.equal(found, (queries @ keys.T).argmax(dim=1))


def test_triton_kernels_are_exact_to_float32_at_low_temperature():
    z = torch.nn.functional.normalize(torch.randn(33, 8, dtype=torch.float64), dim=1)
    codebook = torch.nn.functional.normalize(torch.randn(200, 8, dtype=torch.float64), dim=1)
    gradients = []
    for dtype, kernel in ((torch.float32, "triton"), (torch.float64, "eager")):
        leaves = [value.to(dtype).requires_grad_() for value in (z, codebook)]
        found = assign_codes(*leaves, temperature=0.01, kernel=kernel)
        loss = found.entropy.mean() + (found.mean_probability * (found.mean_probability + 1e-5).log()).sum()
        gradients.append(torch.autograd.grad(loss, leaves))
    for single, double in zip(*gradients, strict=True):
        assert (single - double).norm() / double.norm() < 2e-5
