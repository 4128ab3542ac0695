"""What every quantizer promises: a new file in smalti/quantizers is tested here once it has an example."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing

from smalti.config import build, config_of
from smalti.losses.categorical_kl import CategoricalKL
from smalti.losses.codebook import CodebookLoss
from smalti.losses.commitment import CommitmentLoss
from smalti.losses.entropy import Entropy
from smalti.nn.freezing import freeze
from smalti.quantizers import Quantizer
from smalti.registry import names

EXAMPLES: dict[str, dict[str, Any]] = {
    "nearest": {"size": 12, "channels": 3, "init": "normal"},
    "fsq": {"levels": [4, 3, 3]},
    "lfq": {"channels": 4},
    "bsq": {"channels": 4},
    "simvq": {"size": 12, "channels": 3},
    "ibq": {"size": 12, "channels": 3},
    "gumbel": {"size": 12, "channels": 3},
    "residual": {"quantizer": {"type": "nearest", "size": 12, "channels": 3, "init": "normal"}, "steps": 2},
}
TERMS = {"codebook": CodebookLoss, "commitment": CommitmentLoss, "entropy": Entropy, "categorical_kl": CategoricalKL}
every_quantizer = pytest.mark.parametrize("name", names(Quantizer))
# With one index plane; tests/quantizers/test_residual.py has the same laws for several.
every_plain = pytest.mark.parametrize("name", [name for name in names(Quantizer) if name != "residual"])


def make(name: str) -> Quantizer:
    assert name in EXAMPLES, f"{name}: give it an example in {__file__}"
    torch.manual_seed(0)
    return build({"type": name, **EXAMPLES[name]}, Quantizer)


def latents(quantizer: Quantizer, dtype: torch.dtype = torch.float32, batch: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, quantizer.channels, 5, 6, generator=generator).to(dtype)


def state(quantizer: Quantizer) -> dict[str, torch.Tensor]:
    return copy.deepcopy(quantizer.state_dict())


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one)


@every_quantizer
@pytest.mark.parametrize("training", [True, False])
def test_lookup_of_the_indices_is_the_latent_bit_for_bit(name: str, training: bool) -> None:
    made = make(name).train(training)
    record = made(latents(made))
    assert record.indices.dtype == torch.int64
    assert record.latent.shape == latents(made).shape
    assert 0 <= int(record.indices.min()) <= int(record.indices.max()) < made.size
    assert torch.equal(made.lookup(record.indices), record.latent)


@every_plain
def test_every_index_has_a_code_of_its_own(name: str) -> None:
    made = make(name).eval()
    codes = made.lookup(torch.arange(made.size).view(1, 1, -1))[0, :, 0].T
    assert codes.shape == (made.size, made.channels)
    assert len(codes.unique(dim=0)) == made.size


@every_quantizer
def test_a_part_of_a_batch_gets_the_codes_it_has_in_the_batch(name: str) -> None:
    made = make(name).eval()
    z = latents(made)
    whole = made(z).indices
    assert torch.equal(torch.cat([made(part).indices for part in z.split(1)]), whole)
    wide = made(z.to(memory_format=torch.channels_last))
    assert torch.equal(wide.indices, whole)
    assert torch.equal(wide.latent, made(z).latent)


@every_quantizer
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_latents_and_gradients_keep_the_memory_format(
    name: str, training: bool, memory_format: torch.memory_format
) -> None:
    made = make(name).train(training)
    z = latents(made).contiguous(memory_format=memory_format).requires_grad_()
    record = made(z)
    for tensor in (record.latent, record.quantized, record.z):
        assert tensor.is_contiguous(memory_format=memory_format)
    if training and memory_format is torch.channels_last:
        [gradient] = torch.autograd.grad(record.latent.square().mean(), z)
        assert gradient.is_contiguous(memory_format=memory_format)


@every_quantizer
def test_it_computes_in_float32_inside(name: str) -> None:
    made = make(name).eval()
    narrow = latents(made, torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        one = made(narrow)
    other = made(narrow.float())
    assert one.latent.dtype == torch.float32
    assert torch.equal(one.indices, other.indices)
    assert torch.equal(one.latent, other.latent)


@every_quantizer
def test_the_gradient_reaches_the_encoder_and_is_the_same_each_time(name: str) -> None:
    made = make(name).double()
    gradients = []
    for _ in range(2):
        torch.manual_seed(3)  # for those that draw codes
        z = latents(made, torch.float64).requires_grad_()
        weights = torch.randn(z.shape, dtype=z.dtype, generator=torch.Generator().manual_seed(2))
        (made(z).latent * weights).sum().backward()
        assert z.grad is not None
        assert z.grad.isfinite().all()
        assert z.grad.abs().sum() > 0
        gradients.append(z.grad)
    assert torch.equal(*gradients)


@every_plain
def test_forward_changes_nothing_and_a_frozen_one_only_counts(name: str) -> None:
    made = make(name)
    before = state(made)
    record = made(latents(made))
    made(latents(made))
    assert equal(before, made.state_dict())
    freeze(made)
    made.update([record])
    learned = {key: value for key, value in before.items() if not key.startswith("window.")}
    assert equal(learned, made.state_dict())
    assert made.state_dict()["window.counts"].sum() == record.indices.numel()


@every_plain
def test_usage_is_a_plain_count(name: str) -> None:
    made = make(name)
    record = made(latents(made))
    made.update([record])
    counts = np.bincount(record.indices.flatten().numpy(), minlength=made.size)
    shares = counts[counts > 0] / counts.sum()
    [found] = made.usage()
    assert float(found["usage"]) == pytest.approx((counts > 0).mean())
    assert float(found["perplexity"]) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    rows = made.lookup(record.indices).double()
    torch.testing.assert_close(made.mean().double(), rows.mean(dim=(0, 2, 3)), rtol=1e-5, atol=1e-6)


@every_plain
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_has_no_code(name: str, value: float) -> None:
    made = make(name)
    z = latents(made)
    z[1, 0, 2, 3] = value
    record = made(z)
    assert (record.indices == -1).sum() == 1
    assert record.indices[1, 2, 3] == -1
    assert record.latent[1, :, 2, 3].isnan().all()
    assert record.latent.isnan().sum() == made.channels
    made.update([record])
    assert all(bool(part.isfinite().all()) for part in made.state_dict().values())


@every_quantizer
@pytest.mark.parametrize(("term", "loss"), TERMS.items())
def test_terms_are_those_that_mean_something(name: str, term: str, loss: Any) -> None:
    made = make(name)
    record = made(latents(made).requires_grad_())
    if term not in made.terms:
        with pytest.raises(ValueError, match=f"{term} does not apply to the codebook 'code'"):
            loss()({"code": record})
        return
    value = loss()({"code": record})
    total = getattr(value, "total", value)
    assert total.isfinite()
    assert total.requires_grad


@every_quantizer
def test_it_is_rebuilt_from_its_options(name: str) -> None:
    made = make(name)
    again = build(config_of(made), Quantizer)
    assert config_of(again) == config_of(made)
    again.load_state_dict(made.state_dict())
    assert torch.equal(again.eval()(latents(made)).indices, made.eval()(latents(made)).indices)


@every_quantizer
def test_compiled_it_is_the_same(name: str) -> None:
    made = make(name).eval()
    z = latents(made)
    with torch.no_grad():
        assert torch.equal(torch.compile(made, backend="eager")(z).latent, made(z).latent)


@pytest.mark.slow
@every_quantizer
def test_exported_for_any_size_it_is_the_same(name: str) -> None:
    made = make(name).eval()
    sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height", min=2), 3: torch.export.Dim("width", min=2)}
    with torch.no_grad():
        program = torch.export.export(made, (latents(made),), dynamic_shapes=(sizes,)).module()
    z = torch.randn(3, made.channels, 7, 4)
    found, expected = program(z), made(z)
    assert torch.equal(found.latent, expected.latent)
    assert torch.equal(found.indices, expected.indices)


def trained(quantizer: Quantizer, z: torch.Tensor) -> dict[str, torch.Tensor]:
    """State after two updates from z, and the gradients of all terms that mean something for it."""
    quantizer.eval()  # whoever draws codes in training, draws others in each process
    for step in range(2):
        quantizer.update([quantizer(z + step)])
    quantizer.train()
    points = z.clone().requires_grad_()
    record = quantizer(points)
    fitting = [loss for term, loss in TERMS.items() if term in quantizer.terms]
    values = [loss(gather=True) if loss is Entropy else loss() for loss in fitting]
    total = sum(getattr(value, "total", value) for value in (loss({"code": record}) for loss in values))
    if isinstance(total, torch.Tensor):
        total.backward()
    found = {f"gradient {name}": part.grad for name, part in quantizer.named_parameters() if part.grad is not None}
    return {**state(quantizer), **found}


def residual_with_dropout() -> Quantizer:
    torch.manual_seed(0)
    options = {**EXAMPLES["residual"], "dropout": 1.0, "steps": 3}
    return build({"type": "residual", **options}, Quantizer).double()


def planes(quantizer: Quantizer, z: torch.Tensor, seed: int) -> list[int]:
    """How many steps some updates in training had, whatever random numbers a process has drawn."""
    torch.manual_seed(seed)
    found = []
    for _ in range(12):
        record = quantizer(z)
        found.append(len(record.steps))
        quantizer.update([record])
    return found


def work(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=number, world_size=2)
    try:
        made = {name: make(name).double() for name in EXAMPLES}
        found = {name: trained(one, latents(one, torch.float64).chunk(2)[number]) for name, one in made.items()}
        made = residual_with_dropout()
        found["dropout"] = {"planes": torch.tensor(planes(made, latents(made, torch.float64).chunk(2)[number], number))}
        torch.save(found, f"{folder}/{number}.pt")
    finally:
        dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    multiprocessing.start_processes(work, (str(tmp_path),), nprocs=2, start_method="spawn")  # type: ignore[no-untyped-call]
    first, second = (torch.load(tmp_path / f"{number}.pt") for number in range(2))
    made = residual_with_dropout()
    drawn = planes(made, latents(made, torch.float64), seed=7)
    assert set(drawn) == {1, 2, 3}
    assert first["dropout"]["planes"].tolist() == second["dropout"]["planes"].tolist() == drawn
    for name in EXAMPLES:
        made = make(name).double()
        alone = trained(made, latents(made, torch.float64))
        assert first[name].keys() == second[name].keys() == alone.keys()
        for key, value in alone.items():
            mean = (first[name][key] + second[name][key]) / 2 if key.startswith("gradient") else first[name][key]
            torch.testing.assert_close(
                mean, value, rtol=1e-10, atol=1e-12, msg=lambda text, at=(name, key): f"{at} {text}"
            )
