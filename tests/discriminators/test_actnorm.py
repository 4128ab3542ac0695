"""ActNorm: the first training batch sets it, once, from all processes together."""

import threading

import pytest
import torch

from smalti.discriminators import _actnorm
from smalti.discriminators._actnorm import ActNorm


def batch(seed=0, count=6):
    return 3.0 * torch.randn(count, 4, 5, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 2.0


def test_first_training_batch_comes_out_normalised():
    y = ActNorm(4).double()(batch())
    torch.testing.assert_close(y.mean(dim=(0, 2, 3)), torch.zeros(4, dtype=torch.float64), atol=1e-12, rtol=0.0)
    torch.testing.assert_close(y.std(dim=(0, 2, 3)), torch.ones(4, dtype=torch.float64), atol=1e-5, rtol=0.0)


def test_only_the_first_training_batch_counts():
    norm = ActNorm(4).double().eval()
    torch.testing.assert_close(norm(batch(0)), batch(0))
    assert not norm.initialized
    norm.train()(batch(1))
    state = {key: value.clone() for key, value in norm.state_dict().items()}
    norm(batch(2))
    assert all(torch.equal(value, state[key]) for key, value in norm.state_dict().items())


def test_a_loaded_state_is_not_set_again_and_an_unset_one_is():
    first, second, fresh = ActNorm(4).double(), ActNorm(4).double(), ActNorm(4).double()
    unset = {key: value.clone() for key, value in fresh.state_dict().items()}
    first(batch(0))
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second(batch(1)), first(batch(1)))
    second.load_state_dict(unset)
    second(batch(1))
    assert second.initialized
    assert not torch.equal(second.loc, first.loc)


def test_gradient_passes_in_the_batch_that_sets_it():
    norm, x = ActNorm(4).double(), batch().requires_grad_()
    norm(x).square().sum().backward()
    torch.testing.assert_close(x.grad, 2.0 * norm.scale.detach() ** 2 * (x.detach() + norm.loc.detach()))
    assert norm.loc.grad is not None


def test_two_processes_start_as_one_with_both_batches(monkeypatch):
    # Two threads stand for two processes: all_reduce_sum meets at a barrier and adds what both brought.
    barrier, brought = threading.Barrier(2, timeout=20.0), [None, None]
    ranks = threading.local()

    def meet(tensor):
        brought[ranks.number] = tensor
        barrier.wait()
        total = brought[0] + brought[1]
        barrier.wait()
        return total

    norms = [ActNorm(4).double(), ActNorm(4).double()]
    x = batch()

    def process(number):
        ranks.number = number
        norms[number](x[:2] if number == 0 else x[2:])

    monkeypatch.setattr(_actnorm, "all_reduce_sum", meet)
    threads = [threading.Thread(target=process, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    monkeypatch.undo()
    alone = ActNorm(4).double()
    alone(x)
    for norm in norms:
        torch.testing.assert_close(norm.loc, alone.loc)
        torch.testing.assert_close(norm.scale, alone.scale)


def test_a_first_batch_that_is_not_finite_sets_nothing():
    norm = ActNorm(4).double()
    spoilt = batch(0)
    spoilt[0, 1, 2, 3] = float("nan")
    norm(spoilt)
    assert not norm.initialized
    assert all(value.isfinite().all() for value in norm.state_dict().values())
    fresh = ActNorm(4).double()
    assert torch.equal(norm(batch(1)), fresh(batch(1)))


def test_equal_for_a_constant_channel_is_finite():
    assert torch.isfinite(ActNorm(1)(torch.ones(2, 1, 3, 3))).all()


def test_reads_the_flag_once(monkeypatch):
    norm = ActNorm(4).double()
    norm(batch())
    monkeypatch.setattr(norm, "_initialize", lambda x: pytest.fail("set twice"))
    norm.initialized.zero_()  # nobody does this; it shows that the buffer is not read again
    norm(batch(1))
