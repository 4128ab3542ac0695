"""What every registered generator keeps, and the laws of StyleGAN2's parts."""

import inspect
import re
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from smalti.config import build, config_of
from smalti.config.schema import option_parameters
from smalti.models import Model
from smalti.models._generator import Generator
from smalti.models._saved import SavedModel
from smalti.models._style import ModulatedConv
from smalti.models.resnet_generator import ResnetGenerator
from smalti.models.stylegan2 import StyleGAN2
from smalti.registry import UserError, names, short_name
from tests.contracts.examples import registered

SMALL: dict[str, Any] = {
    "image_size": 16,
    "latent_size": 12,
    "channels": 4,
    "widths": (16, 16),
    "width": 8,
    "mapping_layers": 2,
    "channel_base": 64,
    "max_channels": 8,
    "embedding_size": 3,
}
GENERATORS = [pytest.param(cls, id=short_name(cls)) for cls in registered(Model) if issubclass(cls, Generator)]
every_generator = pytest.mark.parametrize("cls", GENERATORS)
BATCH, CLASSES = 3, 4


def make(cls: Any, **options: Any) -> Generator:
    torch.manual_seed(0)
    small = {name: value for name, value in SMALL.items() if name in option_parameters(cls)}
    generator: Generator = cls(**{**small, **options})
    return generator


def noise(seed: int = 1, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(BATCH, SMALL["latent_size"], generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_generators_of_this_issue_are_found() -> None:
    assert {"mlp_generator", "dcgan", "resnet_generator", "stylegan2"} <= set(names(Model))


@every_generator
def test_images_are_as_many_and_as_large_as_promised(cls) -> None:
    generator = make(cls)
    output = generator.training_forward({"image": torch.zeros(BATCH, 3, 16, 16)})
    assert output.images.shape == (BATCH, 3, 16, 16)
    assert output.latents.shape[0] == BATCH
    assert generator.noise_shape((3, 16, 16)) == (SMALL["latent_size"],)
    with pytest.raises(UserError, match="this generator makes"):
        generator.noise_shape((1, 16, 16))


@every_generator
def test_gradient_reaches_every_parameter(cls) -> None:
    generator = make(cls, num_classes=CLASSES)
    labels = torch.tensor([0, 2, 3])
    generator.training_forward(
        {"image": torch.zeros(BATCH, 3, 16, 16), "label": labels}
    ).images.square().sum().backward()
    assert [name for name, p in generator.named_parameters() if p.grad is None] == []
    assert generator.last_layer.grad is not None
    assert generator.last_layer.grad.abs().sum() > 0


@every_generator
def test_in_evaluation_each_image_is_a_function_of_its_noise(cls) -> None:
    generator = make(cls).double().eval()
    z = noise(dtype=torch.float64)
    images = generator.sample(z)
    assert torch.equal(images, generator.sample(z))
    torch.testing.assert_close(generator.sample(z[:1]), images[:1])
    assert not torch.allclose(images[0], images[1])


@every_generator
def test_truncation_to_nothing_makes_one_image(cls) -> None:
    images = make(cls).double().eval().sample(noise(dtype=torch.float64), truncation=0.0)
    torch.testing.assert_close(images, images[:1].expand_as(images))


@every_generator
def test_classes_matter_and_must_be_given(cls) -> None:
    generator = make(cls, num_classes=CLASSES).eval()
    z = noise()
    first, second = (generator.sample(z, torch.full((BATCH,), label)) for label in (0, 1))
    assert not torch.allclose(first, second)
    with pytest.raises(ValueError, match="labels are missing"):
        generator.sample(z)
    with pytest.raises(ValueError, match="labels are given"):
        make(cls).sample(z, torch.zeros(BATCH, dtype=torch.int64))
    with pytest.raises(ValueError, match="noise has shape"):
        generator.sample(z[:, 1:], torch.zeros(BATCH, dtype=torch.int64))


@every_generator
def test_saved_and_loaded_it_makes_the_same_images(cls, tmp_path) -> None:
    generator = make(cls).eval()
    generator.save_pretrained(tmp_path)
    loaded = SavedModel.from_pretrained(tmp_path)
    assert type(loaded) is cls
    assert torch.equal(loaded.sample(noise()), generator.sample(noise()))


@every_generator
def test_build_of_config_rebuilds_it(cls) -> None:
    generator = make(cls)
    rebuilt = build(config_of(generator), Model)
    assert config_of(rebuilt) == config_of(generator)
    shapes = {key: value.shape for key, value in generator.state_dict().items()}
    assert {key: value.shape for key, value in rebuilt.state_dict().items()} == shapes


@every_generator
def test_docstring_has_shapes_source_and_options(cls) -> None:
    assert re.search(r"\(B\b", cls.__doc__)
    assert re.search(r"arXiv:\d{4}\.\d{4,5}", cls.__doc__)
    for option in inspect.signature(cls).parameters:
        assert re.search(rf"^\s+{option}: ", cls.__doc__, re.MULTILINE), f"option {option} is not described"


@pytest.mark.parametrize("upsample", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
def test_modulated_convolution_equals_a_kernel_of_its_own_for_each_image(upsample: bool, demodulate: bool) -> None:
    layer = ModulatedConv(3, 5, 3, 4, demodulate=demodulate, upsample=upsample).double()
    x, w = torch.randn(2, 3, 6, 6, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    expected = []
    for image, style in zip(x, layer.style(w), strict=True):
        kernel = layer.weight * layer.gain * style[None, :, None, None]
        if demodulate:
            kernel = kernel / (kernel.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if layer.blur is None:
            expected.append(F.conv2d(image[None], kernel, padding=1))
        else:
            expected.append(layer.blur(F.conv_transpose2d(image[None], kernel.transpose(0, 1), stride=2)))
    torch.testing.assert_close(layer(x, w), torch.cat(expected))


@pytest.mark.parametrize("output", ["skip", "residual"])
def test_stylegan2_makes_images_from_its_own_latents(output) -> None:
    generator = make(StyleGAN2, output=output).double().eval()
    made = generator(noise(dtype=torch.float64))
    assert made.latents.shape == (BATCH, generator.num_layers, SMALL["width"])
    assert torch.equal(generator.sample(made.latents), made.images)


def test_every_layer_of_stylegan2_has_a_style_of_its_own() -> None:
    generator = make(StyleGAN2).double().eval()
    w = generator(noise(dtype=torch.float64)).latents.detach().clone().requires_grad_()
    generator.sample(w).square().sum().backward()
    assert w.grad is not None
    assert (w.grad.flatten(2).abs().sum(dim=(0, 2)) > 0).all()


def test_style_mixing_takes_fine_layers_from_a_second_noise_in_training_only() -> None:
    mixed = make(StyleGAN2, style_mixing=1.0).train()(noise()).latents
    assert torch.equal(mixed[:, 0], make(StyleGAN2).eval()(noise()).latents[:, 0])
    assert not torch.equal(mixed[:, 0], mixed[:, -1])
    whole = make(StyleGAN2, style_mixing=0.0).train()(noise()).latents
    assert torch.equal(whole[:, 0], whole[:, -1])


def test_mean_of_w_moves_with_updates_and_not_with_passes() -> None:
    generator = make(StyleGAN2).train()
    output = generator.training_forward({"image": torch.zeros(BATCH, 3, 16, 16)})
    assert torch.equal(generator.mean_w, torch.zeros(SMALL["width"]))
    generator.update([output])
    torch.testing.assert_close(generator.mean_w, 0.002 * output.latents.mean(dim=(0, 1)).detach())


def test_part_of_the_noise_conditions_every_block_of_a_biggan() -> None:
    generator = make(ResnetGenerator, conditioning="class_and_noise", num_classes=CLASSES, spectral_norm=True).eval()
    labels, z = torch.zeros(BATCH, dtype=torch.int64), noise()
    moved = z.clone()
    moved[:, -4:] += 1.0  # the last block's piece
    assert not torch.allclose(generator.sample(z, labels), generator.sample(moved, labels))
    with pytest.raises(ValueError, match="multiple of 3"):
        make(ResnetGenerator, conditioning="class_and_noise", latent_size=13)
