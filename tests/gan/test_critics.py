"""Critics against recorded numbers and by the laws of their parts."""

import pytest
import torch

from smalti.discriminators.dcgan import DCGAN
from smalti.discriminators.mlp import MLP
from smalti.discriminators.residual import Residual
from smalti.discriminators.stylegan import StyleGAN
from smalti.discriminators.stylegan2 import MinibatchDeviation, StyleGAN2
from smalti.nn.resampling import Blur, Upsample

CLASSES = 3
CONDITIONAL = {
    "mlp": lambda: MLP(image_size=16, widths=(8,), num_classes=CLASSES),
    "dcgan": lambda: DCGAN(image_size=16, channels=4, norm="none", num_classes=CLASSES),
    "residual": lambda: Residual(channels=4, num_classes=CLASSES),
    "stylegan2": lambda: StyleGAN2(image_size=16, channel_base=64, max_channels=8, num_classes=CLASSES),
}


def test_stylegan_of_fqgan_is_the_recorded_one(golden) -> None:
    recorded = golden("fqgan/stylegan_disc_32.safetensors")
    state = {key.removeprefix("model."): value for key, value in recorded.items() if key.startswith("model.")}
    discriminator = StyleGAN(image_size=32, channels=32)
    discriminator.load_state_dict({key: value for key, value in state.items() if not key.endswith(".f")})
    x = recorded["io.x"].requires_grad_()
    logits = discriminator(x).logits
    torch.testing.assert_close(logits, recorded["io.out"], rtol=0.0, atol=2e-5)
    logits.sum().backward()
    torch.testing.assert_close(x.grad, recorded["io.grad_x"], rtol=1e-4, atol=1e-6)


def test_stylegan_of_fqgan_has_as_many_parameters_as_the_original() -> None:
    with torch.device("meta"):
        discriminator = StyleGAN(image_size=256)
    assert sum(parameter.numel() for parameter in discriminator.parameters()) == 36_500_225


def test_blur_is_the_recorded_one(golden) -> None:
    recorded = golden("fqgan/blur.safetensors")
    blur = Blur([1.0, 2.0, 1.0], padding=(1, 1), border="reflect")
    torch.testing.assert_close(blur(recorded["x"]), recorded["out"], rtol=0.0, atol=1e-6)


def test_upsampling_keeps_a_constant_inside_and_the_sum_but_for_the_border() -> None:
    x = torch.rand(1, 2, 6, 6, dtype=torch.float64)
    up = Upsample()(torch.ones_like(x))
    assert up.shape == (1, 2, 12, 12)
    torch.testing.assert_close(up[..., 2:-2, 2:-2], torch.ones(1, 2, 8, 8, dtype=torch.float64))
    inside = torch.zeros_like(x)
    inside[..., 2:4, 2:4] = x[..., 2:4, 2:4]
    assert Upsample()(inside).sum().item() == pytest.approx(4.0 * inside.sum().item())


@pytest.mark.parametrize("name", CONDITIONAL)
def test_classes_matter_and_must_be_given(name: str) -> None:
    critic = CONDITIONAL[name]()
    x, labels = torch.rand(4, 3, 16, 16), torch.tensor([0, 1, 2, 0])
    critic(x, labels)
    critic.eval()
    assert not torch.allclose(critic(x, labels).logits, critic(x, labels.roll(1)).logits)
    with pytest.raises(ValueError, match="condition is missing"):
        critic(x)
    with pytest.raises(ValueError, match="whole numbers"):
        critic(x, labels.float())


def test_spectral_norm_bounds_how_steep_the_critic_is() -> None:
    torch.manual_seed(0)
    critic = DCGAN(image_size=16, channels=8, norm="none", spectral_norm=True).double()
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    for _ in range(100):  # power iterations
        critic(x)
    critic.eval()
    x.requires_grad_()
    slope = torch.autograd.grad(critic(x).logits.sum(), x)[0].flatten(1).norm(dim=1)
    # sigma is of the kernel as a matrix; a 4 x 4 kernel of stride 2 overlaps itself up to 2 x 2 times: gain at most 2
    assert slope.max() <= 2.0**2 * 1.0 + 1e-6


def test_minibatch_deviation_tells_equal_images_from_different_ones() -> None:
    layer = MinibatchDeviation(group=4)
    same, mixed = torch.ones(8, 2, 4, 4), torch.randn(8, 2, 4, 4)
    assert layer(same)[:, -1].max() < 1e-3
    found = layer(mixed)[:, -1, 0, 0]
    torch.testing.assert_close(found[0], mixed[::2].std(dim=0, unbiased=False).mean())
    assert (found[::2] == found[0]).all()
