"""Total variation, masked total variation and the gradient loss: laws, and where the originals went wrong."""

import pytest
import torch
import torch.nn.functional as F
from torchmetrics.functional.image import total_variation

from smalti.losses.gradient import gradient
from smalti.losses.l1 import l1
from smalti.losses.masked_tv import MaskedTV, masked_tv
from smalti.losses.tv import TV, tv


def image(*shape):
    return torch.rand(*shape or (2, 3, 6, 5), dtype=torch.float64)


def test_tv_of_l1_summed_equals_torchmetrics():
    x = image()
    torch.testing.assert_close(tv(x, norm="l1", reduction="sum"), total_variation(x))


def test_a_constant_image_has_no_variation_and_a_shifted_one_the_same():
    x = image()
    for function in (tv, masked_tv):
        assert function(torch.full_like(x, 0.3)) == 0.0
        torch.testing.assert_close(function(x + 1.0), function(x))


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_tv_scales_with_the_power_of_its_norm(norm):
    x = image()
    torch.testing.assert_close(tv(3.0 * x, norm=norm), (3.0 if norm == "l1" else 9.0) * tv(x, norm=norm))


def test_masked_tv_averages_each_direction_by_itself():
    x, mask = image(), (image(2, 1, 6, 5) > 0.4).double()
    down = l1(x[:, :, 1:], x[:, :, :-1], mask[:, :, :-1])
    along = l1(x[..., 1:], x[..., :-1], mask[..., :-1])
    torch.testing.assert_close(masked_tv(x, mask), down + along)
    torch.testing.assert_close(masked_tv(x, mask, reduction="sum"), tv(x, mask, norm="l1", reduction="sum"))


def test_masked_tv_works_without_a_mask():
    # The original declares the mask optional and crashes without one.
    x = image()
    torch.testing.assert_close(masked_tv(x), masked_tv(x, torch.ones(2, 1, 6, 5)))


def test_an_empty_mask_costs_nothing():
    x = image().requires_grad_()
    value = masked_tv(x, torch.zeros(2, 1, 6, 5))
    (slope,) = torch.autograd.grad(value, [x])
    assert value == 0.0
    assert not slope.any()


def test_both_weightings_and_samples_alone():
    x, mask = image(), (image(2, 1, 6, 5) > 0.4).double()
    alone = torch.stack([masked_tv(x[n : n + 1], mask[n : n + 1]) for n in range(2)]).mean()
    torch.testing.assert_close(MaskedTV(per_sample=True)(x, mask), alone)
    by_count = masked_tv(x, mask, weighting="mean_of_weighted")
    down = (mask[:, :, :-1] * x.diff(dim=2).abs()).mean()
    along = (mask[..., :-1] * x.diff(dim=3).abs()).mean()
    torch.testing.assert_close(by_count, down + along)
    torch.testing.assert_close(
        TV(per_sample=True)(x, mask), torch.stack([tv(x[n:][:1], mask[n:][:1]) for n in (0, 1)]).mean()
    )


def test_mistakes_are_clear_errors():
    with pytest.raises(ValueError, match="at least 2 x 2 pixels"):
        masked_tv(image(1, 3, 1, 5))
    with pytest.raises(ValueError, match="reduction='none': expected 'mean', 'sum', 'batch_sum'"):
        MaskedTV(reduction="none")
    with pytest.raises(ValueError, match="norm='l3': expected"):
        TV(norm="l3")
    with pytest.raises(ValueError, match="padding='wrap': expected"):
        gradient(image(), image(), padding="wrap")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_gradient_loss_takes_any_number_of_channels(channels):
    # The original's kernels are for one channel: it raises for RGB, whatever its docstring says.
    p, t = image(2, channels, 6, 5), image(2, channels, 6, 5)
    each = [gradient(p[:, c : c + 1], t[:, c : c + 1], reduction="none") for c in range(channels)]
    torch.testing.assert_close(gradient(p, t, reduction="none"), torch.cat(each, dim=1))


def test_gradient_loss_is_the_l1_of_both_sobel_images():
    p, t = image(2, 1, 6, 5), image(2, 1, 6, 5)
    horizontal = torch.tensor([[[[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]]], dtype=torch.float64)
    vertical = torch.tensor([[[[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]]]], dtype=torch.float64)
    sides = [l1(F.conv2d(p, k, padding=1), F.conv2d(t, k, padding=1)) for k in (horizontal, vertical)]
    torch.testing.assert_close(gradient(p, t), sum(sides))


def test_brightness_is_an_edge_at_the_border_only_with_zeros_around():
    p = image()
    assert gradient(p + 0.5, p) > 0.1
    torch.testing.assert_close(gradient(p + 0.5, p, padding="replicate"), torch.zeros((), dtype=torch.float64))
