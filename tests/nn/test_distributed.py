"""Two gloo processes agree with one process on the same global batch."""

import os

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing

from smalti.losses.entropy import Entropy
from smalti.nn.clustering import kmeans
from smalti.nn.distributed import (
    all_reduce_mean,
    all_reduce_sum,
    broadcast,
    differentiable_mean,
    rank,
    world_size,
)
from smalti.quantizers.nearest import EMA, Revival
from tests.quantized import one_codebook, the_quantizer

OPTIONS = [{"ema": EMA(decay=0.5)}, {"init": "kmeans"}, {"revival": Revival(patience=1), "init": "normal"}]
# Points of two ranks: of unequal number, none of one rank finite, fewer than the clusters.
POINTS = torch.randn(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
SHARES = [(POINTS[:9], POINTS[9:]), (POINTS[:9] * float("nan"), POINTS[9:]), (POINTS[:1], POINTS[1:3])]


def quantizers():
    torch.manual_seed(0)
    return [one_codebook(2, 8, 2, projection=False, **options).double() for options in OPTIONS]


def batch():
    return torch.randn(4, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def train(part):
    """Three updates of each quantizer, then the entropy's gradient at z and the codebook."""
    made = quantizers()
    for quantizer in made:
        for step in range(3):
            quantizer.update([quantizer(part + step)])
    z = part.clone().requires_grad_()
    loss = Entropy(temperature=0.5, gather=True)(made[1](z).codebooks).total
    loss.backward()
    states = [{name: value.clone() for name, value in quantizer.state_dict().items()} for quantizer in made]
    return {"states": states, "z": z.grad, "codebook": the_quantizer(made[1]).weight.grad, "loss": loss.detach()}


def work(number, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=number, world_size=2)
    try:
        value = torch.tensor([float(number + 1)], requires_grad=True)
        assert (rank(), world_size()) == (number, 2)
        assert all_reduce_sum(value).item() == 3.0
        assert all_reduce_mean(value).item() == 1.5
        assert broadcast(value, src=1).item() == 2.0
        mean = differentiable_mean(value)
        mean.backward()
        assert (mean.item(), value.grad.item()) == (1.5, 1.0)
        assert kmeans(torch.full((2, 2), float("nan")), 3) is None
        clustered = [kmeans(share[number], 5) for share in SHARES]
        torch.save(clustered, f"{folder}/clustered-{number}.pt")
        torch.save(train(batch().chunk(2)[number]), f"{folder}/{number}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gloo")
    multiprocessing.start_processes(work, (str(folder),), nprocs=2, start_method="spawn")
    loaded = [torch.load(os.path.join(folder, f"{number}.pt")) for number in range(2)]
    clustered = [torch.load(os.path.join(folder, f"clustered-{number}.pt")) for number in range(2)]
    return [each | {"clustered": points} for each, points in zip(loaded, clustered, strict=True)]


def test_ranks_hold_equal_codebooks(ranks):
    for first, second in zip(*(each["states"] for each in ranks), strict=True):
        assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_two_processes_equal_one_on_the_global_batch(ranks):
    alone = train(batch())
    # Revival draws from rank 0's points: only averages and what k-means started are comparable.
    for number in range(2):
        for name, value in alone["states"][number].items():
            torch.testing.assert_close(ranks[0]["states"][number][name], value)
    assert all(
        state["branches.codebook.quantizer.window.counts"].sum() == 3 * 36
        for state in (*ranks[0]["states"], *alone["states"])
    )


@pytest.mark.parametrize("number", range(3))
def test_kmeans_of_unequal_shares_is_that_of_all_points(ranks, number):
    found = [each["clustered"][number] for each in ranks]
    assert torch.equal(*found)
    torch.testing.assert_close(found[0], kmeans(torch.cat(SHARES[number]), 5))


def test_gathered_entropy_has_the_gradient_of_the_global_batch(ranks):
    """Averaged over ranks, as DDP does; at the codebook that the two processes agreed on."""
    torch.manual_seed(0)
    quantizer = quantizers()[1]
    quantizer.load_state_dict(ranks[0]["states"][1])
    z = batch().requires_grad_()
    loss = Entropy(temperature=0.5)(quantizer(z).codebooks).total
    loss.backward()
    torch.testing.assert_close(torch.cat([each["z"] for each in ranks]) / 2.0, z.grad)
    torch.testing.assert_close(
        (ranks[0]["codebook"] + ranks[1]["codebook"]) / 2.0, the_quantizer(quantizer).weight.grad
    )
    torch.testing.assert_close((ranks[0]["loss"] + ranks[1]["loss"]) / 2.0, loss.detach())


def test_one_process_needs_no_group():
    value = torch.tensor([3.0], requires_grad=True)
    assert (rank(), world_size()) == (0, 1)
    for function in (all_reduce_sum, all_reduce_mean, broadcast, differentiable_mean):
        assert function(value).item() == 3.0
