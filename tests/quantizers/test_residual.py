"""Steps that quantize what is left: smaller errors, planes that add up, terms of each step."""

import pytest
import torch

from smalti.bottlenecks.tokens import Branch, Tokens
from smalti.config import build, config_of
from smalti.losses.commitment import CommitmentLoss, commitment_loss
from smalti.quantizers import Quantizer
from smalti.quantizers.fsq import FSQ
from smalti.quantizers.lfq import LFQ
from smalti.quantizers.nearest import EMA, Nearest
from smalti.quantizers.residual import Residual


def quantizer(steps: int = 4, shared: bool = False, dropout: float = 0.0, **options: object) -> Residual:
    torch.manual_seed(0)
    inner = Nearest(**{"size": 16, "channels": 3, "init": "kmeans", **options})  # type: ignore[arg-type]
    return Residual(quantizer=inner, steps=steps, shared=shared, dropout=dropout).double()


def latents(batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, 3, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_the_error_falls_with_every_step() -> None:
    made, z = quantizer(), latents()
    made(z)  # k-means starts each step on what it sees
    record = made.eval()(z)
    errors = [
        float((z - made.lookup(prefix(record.indices, n))).detach().square().mean()) for n in range(made.depth + 1)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[4] < 0.5 * errors[1]


def prefix(indices: torch.Tensor, steps: int) -> torch.Tensor:
    """The first planes of tokens, the others -1."""
    return torch.where((torch.arange(indices.shape[1]) < steps)[:, None, None], indices, -1)


@pytest.mark.parametrize("shared", [False, True])
def test_planes_add_up_to_the_latent_bit_for_bit(shared: bool) -> None:
    made, z = quantizer(shared=shared), latents()
    for mode in (True, False):
        record = made.train(mode)(z)
        assert record.indices.shape == (4, 4, 6, 5)
        assert torch.equal(made.lookup(record.indices), record.latent)
    assert len(made.quantizers) == (1 if shared else 4)


def test_the_commitment_of_a_step_is_that_to_the_sum_so_far() -> None:
    made = quantizer()
    z = latents().requires_grad_()
    record = made(z)
    sums = torch.stack([step.quantized for step in record.steps]).cumsum(dim=0).detach()
    expected = sum((z - total).square().mean() for total in sums)
    torch.testing.assert_close(CommitmentLoss()({"code": record}), expected)
    ours = torch.autograd.grad(sum(commitment_loss(step) for step in record.steps), z)[0]
    torch.testing.assert_close(ours, torch.autograd.grad(expected, z)[0])


def test_what_is_not_finite_has_no_code_in_any_plane() -> None:
    made, z = quantizer(init="normal"), latents()
    z[1, 0, 2, 3] = torch.nan
    record = made(z)
    assert (record.indices == -1).sum() == 4
    assert (record.indices[1, :, 2, 3] == -1).all()
    assert record.latent.isnan().sum() == 3
    made.update([record])
    assert all(bool(part.isfinite().all()) for part in made.state_dict().values())


def test_dropout_leaves_out_last_steps_in_training_only() -> None:
    made, z = quantizer(dropout=1.0, init="normal"), latents(1)
    torch.manual_seed(0)
    used = set()
    for _ in range(60):
        record = made(z)
        used.add(len(record.steps))
        planes = (record.indices >= 0).flatten(2).all(dim=2)[0].tolist()
        assert planes == [number < len(record.steps) for number in range(4)]
        assert torch.equal(made.lookup(record.indices), record.latent)
        made.update([record])
    assert used == {1, 2, 3, 4}
    assert len(made.eval()(z).steps) == 4


@pytest.mark.parametrize("shared", [False, True])
def test_each_step_learns_from_what_it_saw(shared: bool) -> None:
    made, z = quantizer(shared=shared, ema=EMA(decay=0.5)), latents()
    made(z)
    record = made(z)
    before = [step.weight.clone() for step in made.quantizers]
    made.update([record])
    assert all(not torch.equal(step.weight, old) for step, old in zip(made.quantizers, before, strict=True))
    assert len(made.usage()) == 4
    for number, measured in enumerate(made.usage()):
        assert float(measured["usage"]) == len(record.indices[:, number].unique()) / 16


def test_in_a_bottleneck_its_planes_have_names() -> None:
    made = Tokens(in_channels=5, codebooks={"code": Branch(quantizer=quantizer(3))}).double()
    features = torch.randn(2, 5, 4, 4, dtype=torch.float64)
    made(features)
    output = made.eval()(features)
    assert list(made.codebook_sizes) == ["code.0", "code.1", "code.2"]
    assert list(made.codebook_channels) == ["code"]
    assert output.indices is not None
    assert output.indices.shape == (2, 3, 4, 4)
    assert torch.equal(made.lookup(output.indices), output.latent)
    made.update([output])
    assert list(made.usage()) == ["code.0", "code.1", "code.2"]


def test_signs_of_what_is_left_are_steps_too() -> None:
    made = Residual(quantizer=LFQ(channels=3), steps=2).eval()
    z = torch.tensor([1.7, -0.2, 0.4]).view(1, 3, 1, 1)
    assert made(z).latent.flatten().tolist() == [2.0, 0.0, 0.0]


def test_own_tables_start_from_other_draws_and_options_are_kept() -> None:
    made = quantizer(init="normal")
    assert not torch.equal(made.quantizers[0].weight, made.quantizers[1].weight)
    again = build(config_of(made), Quantizer).double()
    again.load_state_dict(made.state_dict())
    assert torch.equal(again(latents()).indices, made(latents()).indices)


@pytest.mark.parametrize(
    ("inner", "shrink"),
    [
        ({"type": "fsq", "levels": [5, 5, 5]}, 4.0),
        ({"type": "fsq", "levels": [4, 7, 3], "bound": "sigmoid"}, 2.0),
        ({"type": "bsq", "channels": 3}, 2.0),
        ({"type": "nearest", "size": 16, "channels": 3, "normalize": True, "init": "normal"}, 2.0),
        ({"type": "simvq", "size": 16, "channels": 3}, 1.5),
    ],
)
def test_of_every_kind_of_code_the_steps_approach_what_is_compared(inner: dict[str, object], shrink: float) -> None:
    torch.manual_seed(0)
    made = Residual(quantizer=build(inner, Quantizer), steps=4, shrink=shrink).double()
    z = latents().requires_grad_()
    for mode in (True, False):
        record = made.train(mode)(z)
        torch.testing.assert_close(record.z, made.quantizers[0](z).z)
        assert torch.equal(made.lookup(record.indices), record.latent)
        errors = [float((record.z - made.lookup(prefix(record.indices, n))).detach().square().mean()) for n in range(5)]
        assert errors == sorted(errors, reverse=True)
        assert errors[4] < 0.5 * errors[1]
    passed = torch.autograd.grad(made.train()(z).latent.sum(), z)[0]
    torch.testing.assert_close(passed, torch.autograd.grad(made.quantizers[0].compared(z).sum(), z)[0])


def test_planes_of_five_values_are_the_digits_of_a_finer_grid() -> None:
    made = Residual(quantizer=FSQ(levels=[5]), steps=2, shrink=4.0).double().eval()
    record = made(torch.linspace(-6, 6, 400, dtype=torch.float64).view(1, 1, 1, 400))
    assert (record.z - record.latent).abs().max() <= 1 / 16 + 1e-9
    assert len(record.latent.unique()) == 17


def test_several_steps_of_several_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one of a single step, not of 2: ask for more steps"):
        Residual(quantizer=quantizer(2))


@pytest.mark.parametrize("options", [{"steps": 1}, {"steps": 65}, {"dropout": 1.5}, {"shrink": 0.5}])
def test_impossible_options_are_errors(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}="):
        Residual(quantizer=Nearest(size=4, channels=2), **options)  # type: ignore[arg-type]
