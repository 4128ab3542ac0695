import pytest
import torch
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from smalti.losses.psnr import PSNR, psnr, psnr_uint8
from smalti.losses.ssim import SSIM, ssim


def pair(*shape: int, noise: float = 0.2, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth target and a noisy prediction that leaves [-1, 1] here and there."""
    rows, columns = torch.linspace(0, 3, shape[-2]), torch.linspace(0, 4, shape[-1])
    target = (torch.sin(rows)[:, None] * torch.cos(columns)).expand(shape).to(dtype)
    return target + noise * torch.randn(shape, dtype=dtype), target


def to_unit(images: torch.Tensor) -> torch.Tensor:
    return (images.clamp(-1, 1) + 1) / 2


def test_psnr_equals_torchmetrics_image_by_image() -> None:
    prediction, target = pair(4, 3, 20, 14)
    expected = [
        peak_signal_noise_ratio(to_unit(one)[None], to_unit(other)[None], data_range=1.0)
        for one, other in zip(prediction, target, strict=True)
    ]
    torch.testing.assert_close(psnr(prediction, target), torch.stack(expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 3, 20, 14), (2, 1, 11, 11), (1, 4, 33, 12)])
def test_ssim_equals_torchmetrics(shape: tuple[int, ...]) -> None:
    prediction, target = pair(*shape)
    expected = structural_similarity_index_measure(
        to_unit(prediction), to_unit(target), data_range=1.0, reduction="none"
    )
    torch.testing.assert_close(ssim(prediction, target), expected.reshape(-1), rtol=0, atol=1e-6)


def test_ssim_equals_scikit_image_where_windows_lie_in_the_image() -> None:
    prediction, target = (to_unit(value) for value in pair(1, 3, 20, 15, dtype=torch.float64))
    expected = structural_similarity(
        prediction[0].numpy(),
        target[0].numpy(),
        gaussian_weights=True,
        use_sample_covariance=False,
        data_range=1.0,
        channel_axis=0,
    )
    value = ssim(2 * prediction - 1, 2 * target - 1, border="valid")
    assert value.item() == pytest.approx(expected, abs=1e-9)


def test_ssim_equals_its_formula_in_one_window() -> None:
    prediction, target = (to_unit(value) for value in pair(1, 1, 11, 11, dtype=torch.float64))
    offsets = torch.arange(11, dtype=torch.float64) - 5
    window = torch.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    mean_x, mean_y = (window * prediction).sum(), (window * target).sum()
    var_x, var_y = (window * (prediction - mean_x) ** 2).sum(), (window * (target - mean_y) ** 2).sum()
    covariance = (window * (prediction - mean_x) * (target - mean_y)).sum()
    expected = (2 * mean_x * mean_y + 1e-4) * (2 * covariance + 9e-4)
    expected /= (mean_x**2 + mean_y**2 + 1e-4) * (var_x + var_y + 9e-4)
    torch.testing.assert_close(
        ssim(2 * prediction - 1, 2 * target - 1, border="valid")[0], expected, rtol=1e-10, atol=1e-12
    )


def test_equal_images_are_perfect() -> None:
    _, target = pair(2, 3, 16, 16)
    assert psnr(target, target).tolist() == [float("inf")] * 2
    assert psnr_uint8(target, target).tolist() == [float("inf")] * 2
    torch.testing.assert_close(ssim(target, target), torch.ones(2), rtol=0, atol=1e-6)


def test_values_outside_the_range_are_clamped() -> None:
    prediction, target = pair(2, 3, 16, 16, noise=1.0)
    assert torch.equal(psnr(prediction, target), psnr(prediction.clamp(-1, 1), target))
    assert torch.equal(ssim(prediction, target), ssim(prediction.clamp(-1, 1), target))
    assert (psnr(prediction, target, clamp=False) < psnr(prediction, target)).all()


def test_ten_times_the_error_costs_twenty_decibels() -> None:
    target = torch.zeros(1, 3, 4, 4, dtype=torch.float64)
    difference = psnr(target + 0.05, target) - psnr(target + 0.5, target)
    torch.testing.assert_close(difference, torch.full((1,), 20.0, dtype=torch.float64))


def test_uint8_variant_sees_the_saved_picture() -> None:
    prediction, target = pair(2, 3, 16, 16, noise=0.05)
    saved = [((value.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).double() for value in (prediction, target)]
    expected = 10 * torch.log10(255**2 / (saved[0] - saved[1]).square().flatten(1).mean(1))
    torch.testing.assert_close(psnr_uint8(prediction, target).double(), expected, rtol=1e-5, atol=1e-5)
    assert not torch.equal(psnr_uint8(prediction, target), psnr(prediction, target))


@pytest.mark.parametrize("loss", [PSNR(), SSIM(window=3)])
def test_gradient_equals_the_numeric_one(loss: torch.nn.Module) -> None:
    prediction, target = pair(2, 1, 5, 4, dtype=torch.float64)
    weight = torch.tensor([0.5, 2.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: loss(x, target, weight), prediction.requires_grad_())


@pytest.mark.parametrize(("kind", "value"), [(PSNR, psnr), (SSIM, ssim)])
def test_loss_is_reduced_over_samples(kind: type[PSNR | SSIM], value: object) -> None:
    prediction, target = pair(3, 3, 12, 12)
    single = kind(reduction="none")(prediction, target)
    assert single.shape == (3, 1, 1, 1)
    torch.testing.assert_close(kind()(prediction, target), single.mean())
    torch.testing.assert_close(kind(reduction="sum")(prediction, target), single.sum())
    torch.testing.assert_close(kind(reduction="batch_sum")(prediction, target), single.mean())
    weight = torch.tensor([0.0, 1.0, 0.0])
    torch.testing.assert_close(kind()(prediction, target, weight), single[1].squeeze())
    clamped = kind(reduction="none", clamp=True)(prediction, target)
    expected = -psnr(prediction, target, eps=1e-8) if kind is PSNR else 1 - ssim(prediction, target)
    torch.testing.assert_close(clamped.flatten(), expected)


def test_equal_images_have_a_finite_gradient() -> None:
    _, target = pair(1, 3, 12, 12)
    for loss in (PSNR(), SSIM()):
        prediction = target.clone().requires_grad_()
        loss(prediction, target).backward()
        assert prediction.grad is not None
        assert prediction.grad.isfinite().all()


def test_half_precision_is_computed_in_single() -> None:
    prediction, target = (value.bfloat16() for value in pair(2, 3, 16, 16))
    for function in (psnr, ssim):
        assert torch.equal(function(prediction, target), function(prediction.float(), target.float()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 4}, "window=4: expected an odd number"),
        ({"sigma": 0.0}, "sigma=0.0: expected a number > 0"),
        ({"reduction": "avg"}, "reduction='avg': expected"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SSIM(**options)  # type: ignore[arg-type]


def test_mistaken_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="must be equal"):
        psnr(torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match="images of 4 x 10 pixels: SSIM needs at least 6 x 6"):
        ssim(torch.zeros(1, 3, 4, 10), torch.zeros(1, 3, 4, 10))
