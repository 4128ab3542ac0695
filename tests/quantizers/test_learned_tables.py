"""SimVQ and IBQ: a table that all gradients move."""

import pytest
import torch

from smalti.losses.codebook import codebook_loss
from smalti.losses.entropy import entropy_terms
from smalti.quantizers.ibq import IBQ
from smalti.quantizers.simvq import SimVQ


def latents(**options: object) -> torch.Tensor:
    made = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return made.requires_grad_(bool(options.get("grad")))


def flat(values: torch.Tensor) -> torch.Tensor:
    return values.permute(0, 2, 3, 1).reshape(-1, values.shape[1])


def test_simvq_takes_the_nearest_mapped_row_and_moves_all_of_them() -> None:
    torch.manual_seed(1)
    made = SimVQ(size=9, channels=3).double()
    record = made(latents())
    rows = made.table @ made.map.weight.T
    assert torch.equal(record.indices.flatten(), torch.cdist(flat(latents()), rows).argmin(dim=1))
    before = made.rows(torch.float64).detach().clone()
    codebook_loss(record).backward()
    assert [name for name, _ in made.named_parameters()] == ["map.weight"]
    with torch.no_grad():
        made.map.weight -= 0.1 * made.map.weight.grad
    unused = torch.ones(9, dtype=torch.bool)
    unused[record.indices.flatten()] = False
    moved = (made.rows(torch.float64) - before).norm(dim=1)
    assert (moved > 0).all(), "those that no latent chose, too"


def test_the_table_of_simvq_has_unit_mean_square_length() -> None:
    torch.manual_seed(0)
    assert float(SimVQ(size=4096, channels=16).table.square().sum(dim=1).mean()) == pytest.approx(1.0, rel=0.02)


def test_ibq_is_the_one_hot_index_with_the_gradient_of_its_softmax() -> None:
    torch.manual_seed(1)
    made = IBQ(size=7, channels=3).double()
    with torch.no_grad():
        made.weight.normal_()
    z = latents(grad=True)
    upstream = torch.randn(z.shape, dtype=z.dtype, generator=torch.Generator().manual_seed(3))
    record = made(z)
    ours = torch.autograd.grad((record.latent * upstream).sum(), [z, made.weight])
    logits = flat(z) @ made.weight.T
    soft = logits.softmax(dim=1)
    hard = torch.nn.functional.one_hot(logits.argmax(dim=1), 7).double()
    index = hard + soft - soft.detach()
    # The sum over codes passes the gradient to a row by the index, which is one-hot, and to p by the rows as they are.
    dense = hard @ made.weight + (index - hard) @ made.weight.detach()
    expected = torch.autograd.grad((dense * flat(upstream)).sum(), [z, made.weight])
    for found, wanted in zip(ours, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    assert (ours[1].abs().sum(dim=1) > 0).all(), "every code gets a gradient"
    assert torch.equal(record.indices.flatten(), logits.argmax(dim=1))


def test_the_entropy_of_ibq_is_that_of_its_products() -> None:
    torch.manual_seed(1)
    made = IBQ(size=7, channels=3).double()
    record = made(latents())
    p = (flat(latents()) @ made.weight.T / 0.5).softmax(dim=1)
    sample, average = entropy_terms(record, temperature=0.5, eps=0.0)
    mean = p.mean(dim=0)
    torch.testing.assert_close(sample, -(p * p.log()).sum(dim=1).mean())
    torch.testing.assert_close(average, -(mean * mean.log()).sum())


@pytest.mark.parametrize(("cls", "options"), [(SimVQ, {"size": 0}), (IBQ, {"size": 2**63})])
def test_sizes_that_no_index_has_are_errors(cls: type[SimVQ] | type[IBQ], options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected 1 to 2"):
        cls(channels=3, **options)


def test_simvq_knows_its_estimators() -> None:
    with pytest.raises(ValueError, match="estimator='copy': expected 'straight_through' or 'rotation'"):
        SimVQ(size=4, channels=2, estimator="copy")  # type: ignore[arg-type]
