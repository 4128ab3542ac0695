"""KL, codebook, commitment and entropy: what sums over what, who gets a gradient, and the goldens' entropy."""

import pytest
import torch

from smalti.losses.codebook import CodebookLoss, codebook_loss
from smalti.losses.commitment import CommitmentLoss, commitment_loss
from smalti.losses.entropy import Entropy, entropy_terms
from smalti.losses.kl import KL, kl
from smalti.nn.soft_assignment import soft_assign
from smalti.outputs import CodebookRecord, DiagonalGaussian


def record(codes=6, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    codebook = torch.randn(codes, channels, dtype=torch.float64, generator=generator).requires_grad_()
    z = torch.randn(2, channels, 2, 4, dtype=torch.float64, generator=generator).requires_grad_()
    indices = torch.randint(codes, (2, 2, 4), generator=generator)
    quantized = codebook[indices].permute(0, 3, 1, 2)
    return CodebookRecord(z=z, quantized=quantized, latent=quantized, codebook=codebook, indices=indices)


@pytest.mark.parametrize("case", ["0", "1", "2"])
@pytest.mark.parametrize("temperature", [0.01, 0.5])
def test_entropy_equals_fqgan(golden, case, temperature):
    """The golden starts from affinities; with the identity as keys, queries are the logits themselves."""
    data = golden("fqgan/entropy.safetensors")
    affinity = data[f"{case}.affinity"].double().requires_grad_()
    assignment = soft_assign(affinity / temperature, torch.eye(affinity.shape[1], dtype=torch.float64), chunk=3)
    mean = assignment.mean_probability
    loss = assignment.entropy.mean() + (mean * (mean + 1e-5).log()).sum()
    expected = data[f"{case}.loss" if temperature == 0.01 else f"{case}.loss_t0.5"]
    torch.testing.assert_close(loss.detach().float(), expected, rtol=1e-5, atol=1e-6)
    if temperature == 0.01:
        loss.backward()
        torch.testing.assert_close(affinity.grad.float(), data[f"{case}.grad"], rtol=1e-4, atol=3e-6)


def test_entropy_is_the_dense_formula():
    given, temperature = record(), 0.3
    tokens = given.z.permute(0, 2, 3, 1).reshape(-1, 3)
    log_p = (-torch.cdist(tokens, given.codebook).square() / temperature).log_softmax(dim=1)
    mean = log_p.exp().mean(dim=0)
    sample, average = -(log_p.exp() * log_p).sum(dim=1).mean(), -(mean * (mean + 1e-5).log()).sum()
    value = Entropy(temperature=temperature, sample_weight=2.0, codebook_weight=0.5)({"only": given})
    torch.testing.assert_close(value.total, 2.0 * sample - 0.5 * average)
    assert value.parts.keys() == {"only.sample", "only.average"}
    torch.testing.assert_close(value.parts["only.average"], average.detach())
    for ours, theirs in zip(
        torch.autograd.grad(value.total, [given.z, given.codebook]),
        torch.autograd.grad(2.0 * sample - 0.5 * average, [given.z, given.codebook]),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_entropy_is_lowest_for_sure_tokens_that_use_all_codes():
    codebook = torch.eye(4, dtype=torch.float64)
    sure = codebook.T.reshape(1, 4, 2, 2)

    def at(z):
        indices = torch.zeros(1, 2, 2, dtype=torch.int64)
        given = CodebookRecord(z=z, quantized=z, latent=z, codebook=codebook, indices=indices)
        return [term.item() for term in entropy_terms(given)]

    logarithm = torch.tensor(4.0, dtype=torch.float64).log().item()
    assert at(sure) == pytest.approx([0.0, logarithm], abs=1e-3)
    assert at(torch.zeros_like(sure)) == pytest.approx([logarithm, logarithm], abs=1e-3)
    assert at(sure[..., :1, :1].expand(1, 4, 2, 2)) == pytest.approx([0.0, 0.0], abs=1e-3)


@pytest.mark.parametrize(
    ("function", "moves_codebook"), [(codebook_loss, True), (commitment_loss, False)], ids=["codebook", "commitment"]
)
def test_only_one_side_gets_the_gradient(function, moves_codebook):
    given = record()
    z, codebook = torch.autograd.grad(function(given), [given.z, given.codebook], allow_unused=True)
    assert (z is None) is moves_codebook
    assert (codebook is None) is not moves_codebook
    difference = (given.z - given.quantized).detach()
    torch.testing.assert_close(function(given).detach(), difference.square().mean())
    if not moves_codebook:
        torch.testing.assert_close(z, 2.0 * difference / difference.numel())


@pytest.mark.parametrize("loss", [CodebookLoss, CommitmentLoss, Entropy])
def test_records_are_summed_and_selected_by_name(loss):
    books = {"visual": record(seed=1), "semantic": record(codes=4, seed=2)}

    def value(made, **subset):
        result = made(subset or books)
        return getattr(result, "total", result)

    each = {name: value(loss(), **{name: book}) for name, book in books.items()}
    torch.testing.assert_close(value(loss()), each["visual"] + each["semantic"])
    torch.testing.assert_close(value(loss(only=["semantic"])), each["semantic"])
    with pytest.raises(ValueError, match=r"no codebook 'semantik'; did you mean 'semantic'\?"):
        loss(only=["semantik"])(books)
    with pytest.raises(ValueError, match="expected at least one record"):
        loss()({})


def test_unreduced_records_of_unequal_width_have_no_sum():
    with pytest.raises(ValueError, match="codebooks of one shape"):
        CodebookLoss(reduction="none")({"a": record(channels=3), "b": record(channels=2)})


def test_kl_reductions():
    posterior = DiagonalGaussian(torch.randn(3, 4, 2, 5), torch.randn(3, 4, 2, 5))
    per_sample = kl(posterior, reduction="none")
    normal = torch.distributions.Normal(0.0, 1.0)
    each = torch.distributions.kl_divergence(torch.distributions.Normal(posterior.mean, posterior.std), normal)
    torch.testing.assert_close(per_sample, each.flatten(1).sum(dim=1))
    torch.testing.assert_close(KL()(posterior), each.mean())
    torch.testing.assert_close(KL(reduction="sum")(posterior), each.sum())
    torch.testing.assert_close(KL(reduction="batch_sum")(posterior), each.sum() / 3)


def test_values_out_of_range_are_errors():
    with pytest.raises(ValueError, match="temperature=0"):
        Entropy(temperature=0.0)
