"""MS-SSIM against torchmetrics, and its gradient where powers have none."""

import pytest
import torch
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from smalti.losses.ms_ssim import MSSSIM, ms_ssim
from smalti.losses.ssim import ssim
from smalti.registry import UserError

TWO = (0.4, 0.6)


def pair(size, noise=0.2, dtype=torch.float32):
    rows, columns = torch.linspace(0, 3, size), torch.linspace(0, 4, size)
    target = (torch.sin(rows)[:, None] * torch.cos(columns)).expand(2, 3, size, size).to(dtype)
    return target + noise * torch.randn(target.shape, dtype=dtype), target


def to_unit(images):
    return (images.clamp(-1.0, 1.0) + 1.0) / 2.0


@pytest.mark.parametrize(("size", "weights"), [(24, TWO), (50, (0.2, 0.3, 0.5)), (176, None)])
@pytest.mark.parametrize(("negative", "normalize"), [("zero", "relu"), ("shift", "simple")])
def test_equals_torchmetrics(size, weights, negative, normalize):
    prediction, target = pair(size)
    options = {} if weights is None else {"betas": weights}
    expected = multiscale_structural_similarity_index_measure(
        to_unit(prediction), to_unit(target), data_range=1.0, reduction="none", normalize=normalize, **options
    )
    ours = {} if weights is None else {"scale_weights": weights}
    torch.testing.assert_close(ms_ssim(prediction, target, negative=negative, **ours), expected, rtol=1e-5, atol=1e-6)


def test_one_scale_is_ssim():
    prediction, target = pair(20)
    for border in ("reflect", "valid"):
        one = ms_ssim(prediction, target, scale_weights=(1.0,), border=border)
        torch.testing.assert_close(one, ssim(prediction, target, border=border))


def test_equal_images_are_perfect_and_the_loss_is_zero():
    _, target = pair(24)
    torch.testing.assert_close(ms_ssim(target, target, scale_weights=TWO), torch.ones(2))
    assert MSSSIM(scale_weights=TWO)(target, target).item() == pytest.approx(0.0, abs=1e-6)


def test_opposite_images_have_a_finite_gradient_and_by_default_one_that_moves():
    _, target = pair(24, dtype=torch.float64)
    for negative, moves in (("zero", False), ("shift", True)):
        prediction = (-target).requires_grad_()
        value = MSSSIM(scale_weights=TWO, negative=negative)(prediction, target)
        (slope,) = torch.autograd.grad(value, [prediction])
        assert slope.isfinite().all()
        assert bool(slope.any()) is moves
    assert MSSSIM().negative == "shift"


def test_gradient_equals_the_numeric_one():
    prediction, target = pair(12, dtype=torch.float64)
    loss = MSSSIM(scale_weights=TWO, window=3)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), prediction.requires_grad_(), fast_mode=True)


def test_small_images_and_impossible_options_are_refused():
    prediction, target = pair(64)
    with pytest.raises(UserError, match="5 scales and windows of 11 needs at least 96 x 96; give fewer scale_weights"):
        ms_ssim(prediction, target)
    with pytest.raises(UserError, match="at least 176 x 176"):
        ms_ssim(prediction, target, border="valid")
    with pytest.raises(ValueError, match="window=4: expected an odd number"):
        MSSSIM(window=4)
    for weights in ((), (0.5, 0.0)):
        with pytest.raises(ValueError, match="scale_weights="):
            MSSSIM(scale_weights=weights)
