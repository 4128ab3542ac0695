"""LPIPS against the originals' numbers, and the traps of the originals: NaN gradients, dropout, training mode."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from smalti.extractors import lpips as features
from smalti.losses.lpips import LPIPS, lpips

TINY = (4, 4, 8, 8, 8)


def tiny(**options):
    return LPIPS(extractor=features.LPIPS(weights="random", widths=TINY), **options).double()


def images(count=2, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2.0 * torch.rand(count, 3, size, size, generator=generator, dtype=torch.float64) - 1.0


@pytest.fixture
def from_golden(golden, tmp_path):
    def load(name, prefix, widths):
        tensors = golden(name)
        weights = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        save_file(weights, tmp_path / "tiny.safetensors")
        return features.LPIPS(weights=str(tmp_path / "tiny.safetensors"), widths=widths)

    return load


def test_equals_latent_diffusion_layer_by_layer(golden, from_golden):
    extractor = from_golden("ldm/kl_tiny_state.safetensors", "loss.perceptual_loss.", (8, 8, 12, 12, 16)).double()
    tensors, io = golden("ldm/kl_loss_tensors.safetensors"), golden("ldm/kl_tiny_io.safetensors")
    value = lpips(io["recon_sample"], io["image"], extractor=extractor, reduction="none")
    torch.testing.assert_close(value, tensors["p_loss"], atol=0.0, rtol=1e-9)
    for k, feature in enumerate(extractor.trunk(io["image"])):
        torch.testing.assert_close(feature.float(), tensors[f"lpips.feat_input.{k}"], atol=1e-6, rtol=1e-6)
    for k, (a, b) in enumerate(zip(extractor(io["image"]), extractor(io["recon_sample"]), strict=True)):
        layer = (a - b).square().sum(dim=1, keepdim=True).mean(dim=(2, 3), keepdim=True)
        torch.testing.assert_close(layer, tensors[f"lpips.layer_value.{k}"], atol=1e-12, rtol=1e-9)


def test_equals_fqgan_with_its_gradient(golden, from_golden):
    extractor = from_golden("fqgan/lpips_small.safetensors", "model.", (8, 8, 16, 16, 16))
    tensors = golden("fqgan/lpips_small.safetensors")
    x1 = tensors["io.x1"].requires_grad_()
    value = lpips(x1, tensors["io.x0"], extractor=extractor, reduction="none")
    torch.testing.assert_close(value, tensors["io.out"], atol=1e-6, rtol=1e-5)
    (gradient,) = torch.autograd.grad(value.sum(), [x1])
    torch.testing.assert_close(gradient, tensors["io.grad_x1"], atol=1e-6, rtol=1e-4)
    names = ["relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"]
    for name, feature in zip(names, extractor.trunk(tensors["io.x0"]), strict=True):
        assert list(feature.shape) == tensors[f"io.feat.{name}.shape"].tolist()
        torch.testing.assert_close(feature.mean(), tensors[f"io.feat.{name}.mean"], atol=1e-6, rtol=1e-5)


def test_gradient_is_finite_where_all_features_are_zero():
    loss = tiny()
    for convolution in loss.extractor.trunk.features.values():
        convolution.bias.fill_(-1e3)  # every ReLU gives 0
    x = images().requires_grad_()
    value = loss(x, images(seed=1))
    (gradient,) = torch.autograd.grad(value, [x])
    assert value.item() == 0.0
    assert not gradient.any()


@pytest.mark.parametrize("level", [-1.0, -0.088, 0.0, 1.0])
def test_gradient_is_finite_on_constant_and_on_equal_images(level):
    loss, x = tiny(), torch.full((1, 3, 32, 32), level, dtype=torch.float64).requires_grad_()
    for target in (x.detach().clone(), images(1)):
        (gradient,) = torch.autograd.grad(loss(x, target), [x])
        assert torch.isfinite(gradient).all()


def test_unit_features_have_a_finite_gradient_at_zero_and_the_originals_value():
    f = torch.zeros(1, 4, 1, 2, dtype=torch.float64)
    f[0, :, 0, 1] = torch.tensor([3.0, 0.0, 4.0, 0.0])
    f.requires_grad_()
    value = features.unit(f)
    torch.testing.assert_close(value[0, :, 0, 1], torch.tensor([0.6, 0.0, 0.8, 0.0], dtype=torch.float64))
    (gradient,) = torch.autograd.grad(value.sum(), [f])
    assert torch.isfinite(gradient).all()


def test_value_does_not_change_when_a_parent_is_set_to_training():
    loss = tiny()
    before = loss(images(), images(seed=1))
    parent = nn.ModuleDict({"term": loss}).train()
    assert not any(module.training for module in loss.extractor.modules())
    assert torch.equal(parent["term"](images(), images(seed=1)), before)


def test_target_is_seen_without_autograd():
    x, target = images().requires_grad_(), images(seed=1).requires_grad_()
    gradients = torch.autograd.grad(tiny()(x, target), [x, target], allow_unused=True)
    assert gradients[0] is not None
    assert gradients[1] is None


def test_is_symmetric_and_zero_only_for_equal_images():
    loss, x, y = tiny(), images(), images(seed=1)
    torch.testing.assert_close(loss(x, y), loss(y, x))
    assert loss(x, y) > 0.0
    assert loss(x, x) == 0.0


def test_one_value_per_sample_and_weights_per_sample():
    x, y = images(3), images(3, seed=1)
    values = tiny(reduction="none")(x, y)
    assert values.shape == (3, 1, 1, 1)
    torch.testing.assert_close(tiny()(x[1:2], y[1:2]), values[1, 0, 0, 0])
    weight = torch.tensor([1.0, 0.0, 3.0])
    torch.testing.assert_close(tiny()(x, y, weight), (values[0] + 3.0 * values[2]).sum() / 4.0)
    with pytest.raises(ValueError, match="weight with shape"):
        tiny()(x, y, torch.ones(3, 1, 32, 32))


def test_is_in_no_state_dict_and_no_parameter_count_and_moves_with_its_parent():
    loss = tiny()
    assert not loss.state_dict()
    assert not list(loss.parameters())
    assert all(buffer.dtype == torch.float64 for buffer in loss.buffers())


def test_grey_images_are_three_equal_channels():
    x, y = images()[:, :1], images(seed=1)[:, :1]
    torch.testing.assert_close(tiny()(x, y), tiny()(x.expand(-1, 3, -1, -1), y.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize(("shape", "message"), [((1, 4, 32, 32), "expected"), ((1, 3, 32, 15), "at least 16 x 16")])
def test_images_that_do_not_fit_are_clear_errors(shape, message):
    with pytest.raises(ValueError, match=message):
        tiny()(torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64))


def test_half_precision_features_are_compared_in_float32():
    loss = LPIPS(extractor=features.LPIPS(weights="random", widths=TINY)).bfloat16()
    x, y = images().bfloat16(), images(seed=1).bfloat16()
    value = loss(x, y)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(tiny()(x.double(), y.double()).item(), rel=0.05)
