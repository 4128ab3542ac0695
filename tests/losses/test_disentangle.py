"""Whom the disentanglement loss moves, and which pairs count."""

import pytest
import torch

from smalti.bottlenecks.tokens import Tokens
from smalti.losses.disentangle import Disentangle, cosines, disentangle
from tests.quantized import branch


def records(*names, **options):
    torch.manual_seed(0)
    codebooks = {name: branch(5, 3, init="normal", **options) for name in names}
    bottleneck = Tokens(in_channels=4, codebooks=codebooks).double()
    return bottleneck, bottleneck(torch.randn(2, 4, 3, 5, dtype=torch.float64)).codebooks


def moved(bottleneck, part):
    gradients = [p.grad for name, p in bottleneck.named_parameters() if part in name]
    return any(gradient is not None and gradient.any() for gradient in gradients)


def test_it_is_the_mean_squared_cosine_by_hand():
    _, found = records("a", "b")
    u, v = found["a"].quantized, found["b"].quantized
    expected = 0.0
    for b in range(2):
        for y in range(3):
            for x in range(5):
                p, q = u[b, :, y, x], v[b, :, y, x]
                expected += (p @ q / p.norm() / q.norm()) ** 2 / 30
    torch.testing.assert_close(disentangle(found["a"], found["b"]), expected)


def test_three_codebooks_are_the_mean_over_pairs():
    _, found = records("a", "b", "c")
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    value = Disentangle()(found)
    torch.testing.assert_close(value.total, sum(disentangle(found[p], found[q]) for p, q in pairs) / 3)
    assert list(value.parts) == ["a-b", "a-c", "b-c"]
    torch.testing.assert_close(value.parts["a-b"], cosines(found["a"].latent, found["b"].latent).abs().mean().detach())
    chosen = Disentangle(pairs=[["c", "a"]])(found)
    torch.testing.assert_close(chosen.total, disentangle(found["a"], found["c"]))


@pytest.mark.parametrize("estimator", ["straight_through", "gradient_copy"])
@pytest.mark.parametrize(("mode", "codebooks_move"), [("latent", False), ("code", True)])
def test_mode_says_whether_the_codebooks_move(mode, codebooks_move, estimator):
    bottleneck, found = records("a", "b", estimator=estimator)
    Disentangle(mode=mode)(found).total.backward()
    assert moved(bottleneck, "projection")
    assert moved(bottleneck, "quantizer") is codebooks_move


def test_both_modes_hand_the_encoder_the_same():
    gradients = []
    for mode in ("latent", "code"):
        bottleneck, found = records("a", "b")
        Disentangle(mode=mode)(found).total.backward()
        gradients.append([p.grad for name, p in bottleneck.named_parameters() if "projection" in name])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two)


def test_code_counts_the_gradient_to_the_codebooks_once_whatever_the_estimator():
    gradients = []
    for options in ({}, {"estimator": "gradient_copy", "codebook_gradient": True}):
        bottleneck, found = records("a", "b", **options)
        Disentangle(mode="code")(found).total.backward()
        gradients.append([p.grad for name, p in bottleneck.named_parameters() if "quantizer" in name])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two)


def test_descent_makes_codes_orthogonal():
    bottleneck, _ = records("a", "b", normalize=True)
    features = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    optimizer = torch.optim.SGD(bottleneck.parameters(), lr=0.5)
    before = None
    for _ in range(60):
        optimizer.zero_grad()
        value = Disentangle(mode="code")(bottleneck(features).codebooks)
        before = before or value.total.item()
        value.total.backward()
        optimizer.step()
    assert value.total.item() < 0.5 * before


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["a"], {}, "expected at least two"),
        (["a", "b"], {"pairs": [["a", "c"]]}, "no codebook 'c'"),
        (["a", "b"], {"pairs": [["a", "a"]]}, "expected pairs of two different names"),
        (["a", "b"], {"pairs": []}, "expected pairs of two different names"),
        (["a", "b"], {"mode": "codes"}, "mode='codes': expected 'latent'"),
    ],
)
def test_impossible_pairs_are_errors(names, options, message):
    _, found = records(*names)
    with pytest.raises(ValueError, match=message):
        Disentangle(**options)(found)


def test_codes_of_unequal_width_have_no_cosine():
    with pytest.raises(ValueError, match="expected codes of one width"):
        cosines(torch.zeros(1, 2, 1, 1), torch.zeros(1, 3, 1, 1))
