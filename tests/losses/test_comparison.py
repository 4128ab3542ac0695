"""L1, MSE and Charbonnier: what distinguishes them from each other."""

import pytest
import torch

from smalti.losses.charbonnier import Charbonnier, charbonnier
from smalti.losses.l1 import L1, l1
from smalti.losses.mse import MSE, mse


def pair():
    return torch.randn(2, 2, 3, 4, 4, dtype=torch.float64).unbind()


def test_l1_scales_with_the_difference_and_mse_with_its_square():
    p, t = pair()
    torch.testing.assert_close(l1(3.0 * p, 3.0 * t), 3.0 * l1(p, t))
    torch.testing.assert_close(mse(3.0 * p, 3.0 * t), 9.0 * mse(p, t))


def test_all_are_symmetric():
    p, t = pair()
    for loss in (l1, mse, charbonnier):
        torch.testing.assert_close(loss(p, t), loss(t, p))


def test_charbonnier_lies_between_l1_and_l1_plus_its_floor():
    p, t = pair()
    for eps in (1e-12, 1e-3, 1.0):
        smooth, sharp = charbonnier(p, t, eps=eps, reduction="none"), l1(p, t, reduction="none")
        assert (smooth >= sharp).all()
        assert (smooth <= sharp + eps**0.5).all()
    assert charbonnier(p, p).item() == pytest.approx(1e-6)


def test_agree_with_torch():
    p, t = pair()
    torch.testing.assert_close(l1(p, t), torch.nn.functional.l1_loss(p, t))
    torch.testing.assert_close(mse(p, t), torch.nn.functional.mse_loss(p, t))
    torch.testing.assert_close(
        mse(p, t, reduction="batch_sum"), torch.nn.functional.mse_loss(p, t, reduction="sum") / 2
    )


@pytest.mark.parametrize("cls", [L1, MSE, Charbonnier])
def test_classes_pass_their_options_on(cls):
    p, t = pair()
    mask = (torch.rand(2, 1, 4, 4) > 0.7).double()
    expected = torch.stack([cls()(p[n : n + 1], t[n : n + 1], mask[n : n + 1]) for n in range(2)]).mean()
    torch.testing.assert_close(cls(per_sample=True)(p, t, mask), expected)
    share = mask.mean()
    torch.testing.assert_close(cls(weighting="mean_of_weighted")(p, t, mask), cls()(p, t, mask) * share)


def test_charbonnier_refuses_an_eps_that_has_no_gradient_at_zero():
    with pytest.raises(ValueError, match=r"eps=0.0: expected > 0"):
        Charbonnier(eps=0.0)
