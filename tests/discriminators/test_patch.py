"""PatchGAN against the originals (FQGAN, latent-diffusion), and its laws."""

import pytest
import torch

from smalti.discriminators.patch import Patch


def under(tensors, prefix):
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def test_equals_fqgan(golden):
    tensors = golden("fqgan/patchgan_n3.safetensors")
    discriminator = Patch(channels=8, layers=3, norm="batch")
    discriminator.load_state_dict(under(tensors, "model."))
    x = tensors["io.x"].requires_grad_()
    logits = discriminator(x).logits
    torch.testing.assert_close(logits, tensors["io.train.out"], atol=2e-5, rtol=0.0)
    (gradient,) = torch.autograd.grad(logits.mean(), [x])
    torch.testing.assert_close(gradient, tensors["io.train.grad_x"], atol=1e-6, rtol=1e-4)
    state = discriminator.state_dict()
    for key, value in under(tensors, "io.after.").items():
        torch.testing.assert_close(state[key], value, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(discriminator.eval()(x).logits, tensors["io.eval.out"], atol=2e-5, rtol=0.0)


@pytest.mark.parametrize(("name", "norm", "layers"), [("bn", "batch", 3), ("actnorm", "actnorm", 2)])
def test_equals_latent_diffusion(golden, name, norm, layers):
    tensors = golden("ldm/discriminators.safetensors")
    discriminator = Patch(channels=8, layers=layers, norm=norm).double()
    discriminator.load_state_dict(under(tensors, f"{name}.state_before."))
    torch.testing.assert_close(
        discriminator(tensors["image"]).logits, tensors[f"{name}.out_train"], atol=1e-9, rtol=1e-9
    )
    state = discriminator.state_dict()
    for key, value in under(tensors, f"{name}.state_after.").items():
        torch.testing.assert_close(state[key], value, atol=1e-9, rtol=1e-9)
    out = discriminator.eval()(tensors["image"]).logits
    torch.testing.assert_close(out, tensors[f"{name}.out_eval"], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(("layers", "size"), [(1, 126), (2, 62), (3, 30), (4, 14)])
def test_size_of_the_logit_map_at_256_pixels(layers, size):
    with torch.device("meta"):
        assert Patch(layers=layers)(torch.empty(1, 3, 256, 256)).logits.shape == (1, 1, size, size)


@pytest.mark.parametrize(("layers", "count"), [(3, 2_765_633), (2, 663_361)])
def test_number_of_parameters_is_the_originals(layers, count):
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in Patch(layers=layers).parameters()) == count


def test_smallest_size_gives_one_logit_and_one_pixel_less_an_error():
    discriminator = Patch(channels=2, layers=2)
    assert discriminator(torch.zeros(2, 3, 12, 12)).logits.shape == (2, 1, 1, 1)
    with pytest.raises(ValueError, match="images of 12 x 11 pixels: this discriminator needs at least 12 x 12"):
        discriminator(torch.zeros(2, 3, 12, 11))


def test_features_are_the_activations_before_the_logits():
    discriminator = Patch(channels=4, layers=3, norm="none")
    output = discriminator(torch.randn(2, 3, 32, 32))
    assert [tuple(feature.shape[1:]) for feature in output.features] == [(4, 16, 16), (8, 8, 8), (16, 4, 4), (32, 3, 3)]
    torch.testing.assert_close(discriminator.main[-1](output.features[-1]), output.logits)


def test_keys_do_not_depend_on_the_norm():
    convolutions = {
        norm: [name for name, _ in Patch(channels=2, norm=norm).named_parameters() if _.ndim == 4 and _.shape[-1] == 4]
        for norm in ("batch", "actnorm", "none")
    }
    assert convolutions["batch"] == convolutions["actnorm"] == convolutions["none"]


def test_condition_is_seen_and_its_absence_or_shape_is_an_error():
    discriminator = Patch(channels=4, layers=2, norm="none", condition_channels=2)
    images, condition = torch.randn(2, 3, 16, 16), torch.randn(2, 2, 16, 16)
    first = discriminator(images, condition).logits
    assert not torch.equal(first, discriminator(images, condition + 1.0).logits)
    with pytest.raises(ValueError, match="condition is missing"):
        discriminator(images)
    with pytest.raises(ValueError, match=r"condition has shape \(2, 2, 8, 8\)"):
        discriminator(images, condition[:, :, :8, :8])


def test_initial_weights_have_deviation_two_hundredths():
    torch.manual_seed(0)
    discriminator = Patch(channels=32)
    for module in discriminator.modules():
        if isinstance(module, torch.nn.Conv2d) and module.weight.numel() > 10_000:
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.03)
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.weight.mean().item() == pytest.approx(1.0, abs=0.02)
            assert not module.bias.any()


def test_unknown_norm_is_an_error():
    with pytest.raises(ValueError, match="norm='layer': expected"):
        Patch(norm="layer")
