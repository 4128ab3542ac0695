"""The soft assignment of binary codes equals that of their list, which it never makes."""

import math
import os
import subprocess
import sys

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing

from smalti.losses.entropy import Entropy, entropy_terms
from smalti.nn.bit_assignment import assign_bits, groups_of_bits
from smalti.outputs import CodebookRecord
from smalti.quantizers.bsq import BSQ
from smalti.quantizers.lfq import LFQ

QUANTIZERS = [LFQ, BSQ]
TEMPERATURES = [0.01, 0.1, 1.0, 5.0]


def latents(channels, dtype=torch.float64, size=(4, 6, 5)):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(size[0], channels, *size[1:], dtype=torch.float64, generator=generator).to(dtype)


def listed(record):
    """The same record with all codes in a table, in float64."""
    bits = record.z.shape[1]
    table = (torch.arange(2**bits)[:, None] >> torch.arange(bits)) & 1
    codes = (2 * table - 1).double() * record.scale
    z = record.z.detach().double().requires_grad_()
    return CodebookRecord(z=z, quantized=z, latent=z, codebook=codes, indices=record.indices)


def of_loss(record, temperature, **weights):
    """S and A, and the gradient of the loss at the record's z."""
    loss = Entropy(temperature=temperature, **weights)({"bits": record})
    return [*loss.parts.values(), torch.autograd.grad(loss.total, record.z)[0]]


@pytest.mark.parametrize("quantizer", QUANTIZERS)
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_entropy_and_its_gradients_equal_the_listed_form(quantizer, temperature, dtype, tolerance):
    record = quantizer(channels=10).to(dtype)(latents(10, dtype, size=(8, 16, 16)).requires_grad_())
    for ours, theirs in zip(of_loss(record, temperature), of_loss(listed(record), temperature), strict=True):
        assert ours.dtype == dtype
        assert (ours - theirs).norm() <= tolerance * theirs.norm()


@pytest.mark.parametrize("quantizer", QUANTIZERS)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_gradient_of_the_mean_alone_equals_the_listed_form(quantizer, temperature):
    record = quantizer(channels=10).double()(latents(10).requires_grad_())
    ours, theirs = (of_loss(one, temperature, sample_weight=0.0)[-1] for one in (record, listed(record)))
    assert (ours - theirs).norm() <= 1e-12 * theirs.norm()


@pytest.mark.parametrize("quantizer", QUANTIZERS)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_all_statistics_equal_the_listed_form(quantizer, temperature):
    record = quantizer(channels=7).double()(latents(7))
    ours, theirs = record.soft_assignment(temperature), listed(record).soft_assignment(temperature)
    for name in ("indices", "log_partition", "entropy", "mean_probability"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))
    assert torch.equal(ours.indices, record.indices.flatten())


def test_the_loss_takes_records_of_bits_and_of_a_table_together():
    records = {"one": LFQ(channels=4)(latents(4)), "two": LFQ(channels=4)(-3 * latents(4))}
    mixed = {**records, "apart": LFQ(channels=4, entropy_group=2)(latents(4)), "ball": BSQ(channels=4)(latents(4))}
    mixed["table"] = listed(records["two"])
    found = Entropy(temperature=0.3)(mixed)
    for name, record in mixed.items():
        alone = Entropy(temperature=0.3)({name: record})
        torch.testing.assert_close(found.parts[f"{name}.average"], alone.parts[f"{name}.average"])
    torch.testing.assert_close(found.parts["table.average"], found.parts["two.average"])
    torch.testing.assert_close(found.total, sum(Entropy(temperature=0.3)({"": one}).total for one in mixed.values()))


@pytest.mark.parametrize("groups", [(5,), (3, 2), (1, 1, 1, 1, 1)])
@pytest.mark.parametrize("chunk", [1, 4, None])
def test_gradients_are_exact_for_any_groups_and_chunk(groups, chunk):
    def statistics(z):
        found = assign_bits(z, scale=0.7, temperature=1.3, groups=groups, chunk=chunk)
        return found.log_partition, found.entropy, found.mean_probability

    z = torch.randn(2, 9, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(statistics, z)


@pytest.mark.parametrize("value", [30.0, 1e4, 1e30, 3e38])
@pytest.mark.parametrize("temperature", [0.01, 1e-6])
def test_large_logits_give_certainty_and_no_nan(value, temperature):
    z = torch.tensor([[value, -value], [-value, value]]).T.reshape(1, 2, 1, 2).requires_grad_()
    record = LFQ(channels=2)(z)
    loss = Entropy(temperature=temperature)({"bits": record})
    loss.total.backward()
    assert loss.parts["bits.sample"] == 0.0
    assert loss.parts["bits.average"].item() == pytest.approx(math.log(2), abs=1e-4)
    assert torch.equal(z.grad, torch.zeros_like(z))


def test_a_value_of_zero_is_either_bit_and_its_entropy_has_no_slope():
    z = torch.zeros(1, 3, 1, 1, dtype=torch.float64, requires_grad=True)
    found = LFQ(channels=3)(z).soft_assignment(0.5)
    torch.testing.assert_close(found.entropy, torch.full((1,), 3 * math.log(2), dtype=torch.float64))
    torch.testing.assert_close(found.mean_probability, torch.full((8,), 0.125, dtype=torch.float64))
    assert not torch.autograd.grad(found.entropy.sum() + found.log_partition.sum(), z)[0].any()


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_sum_over_groups_bounds_the_joint_entropy_from_above(quantizer):
    z = latents(8)
    z[:, 4:] = z[:, :4] + 0.1 * z[:, 4:]  # bits that know of each other
    joint, halves, bits = (
        entropy_terms(quantizer(channels=8, entropy_group=group)(z), temperature=0.2, eps=0.0) for group in (8, 4, 1)
    )
    torch.testing.assert_close(joint[0], halves[0])
    torch.testing.assert_close(joint[0], bits[0])
    assert joint[1] + 0.1 < halves[1] < bits[1]


def test_mean_probability_of_groups_is_their_marginals_in_order():
    record = LFQ(channels=6, entropy_group=2).double()(latents(6))
    found = record.soft_assignment(0.4).mean_probability.view(3, 4)
    joint = listed(record).soft_assignment(0.4).mean_probability.view(4, 4, 4)  # the last group is the first axis
    for number, axes in enumerate([(0, 1), (0, 2), (1, 2)]):
        torch.testing.assert_close(found[number], joint.sum(dim=axes))


@pytest.mark.parametrize(
    ("bits", "group", "expected"),
    [
        (1, None, (1,)),
        (18, None, (18,)),
        (19, None, (10, 9)),
        (36, None, (18, 18)),
        (41, None, (14, 14, 13)),
        (62, None, (16, 16, 15, 15)),
        (12, 3, (3, 3, 3, 3)),
    ],
)
def test_groups_are_as_few_as_hold_18_bits_and_nearly_equal(bits, group, expected):
    assert groups_of_bits(bits, group) == expected
    assert LFQ(channels=bits, entropy_group=group).groups == expected


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"temperature=0\.0"):
        assign_bits(torch.zeros(2, 3), scale=1.0, temperature=0.0)
    with pytest.raises(ValueError, match=r"groups=\(2, 2\): expected sizes that add up to 3 bits"):
        assign_bits(torch.zeros(2, 3), scale=1.0, temperature=1.0, groups=(2, 2))


def test_no_token_gives_empty_results():
    found = assign_bits(torch.zeros(0, 3), scale=1.0, temperature=1.0)
    assert found.entropy.shape == found.indices.shape == (0,)
    assert torch.equal(found.mean_probability, torch.zeros(8))


def test_only_the_latents_are_saved():
    z = torch.randn(300, 12, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        assign_bits(z, scale=1.0, temperature=0.1)
    assert sum(saved) <= 2 * z.numel()


def test_autocast_changes_nothing():
    z = torch.randn(50, 6, requires_grad=True)
    plain = assign_bits(z, scale=1.0, temperature=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = assign_bits(z, scale=1.0, temperature=0.1)
        gradient = torch.autograd.grad(cast.mean_probability.square().sum(), z)[0]
    assert torch.equal(plain.mean_probability, cast.mean_probability)
    assert torch.equal(gradient, torch.autograd.grad(plain.mean_probability.square().sum(), z)[0])


PEAK = """
import resource, torch
from smalti.losses.entropy import Entropy
from smalti.quantizers.lfq import LFQ
torch.set_num_threads(1)
def step(channels, side):
    z = torch.randn(8, channels, side, side, requires_grad=True)
    Entropy(temperature=0.1)({"bits": LFQ(channels=channels)(z)}).total.backward()
    return z.grad
step(18, 2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step(18, 32)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_peak_memory_of_18_bits_and_8192_tokens_stays_below_64_mib():
    """Of tokens times codes: 8 GiB."""
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 64


def gathered(z, gather):
    """Loss and gradient of bits in two groups, whose mean is that over ranks if it is gathered."""
    z = z.clone().requires_grad_()
    record = LFQ(channels=6, entropy_group=3).double()(z)
    loss = Entropy(temperature=0.5, gather=gather)({"bits": record}).total
    return loss.detach(), torch.autograd.grad(loss, z)[0]


def work(number, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=number, world_size=2)
    try:
        torch.save(gathered(latents(6).chunk(2)[number], gather=True), f"{folder}/{number}.pt")
    finally:
        dist.destroy_process_group()


def test_two_processes_that_gather_equal_one(tmp_path):
    multiprocessing.start_processes(work, (str(tmp_path),), nprocs=2, start_method="spawn")
    (first, upper), (second, lower) = (torch.load(os.path.join(tmp_path, f"{number}.pt")) for number in range(2))
    loss, gradient = gathered(latents(6), gather=False)
    torch.testing.assert_close((first + second) / 2, loss)
    torch.testing.assert_close(torch.cat([upper, lower]) / 2, gradient)
