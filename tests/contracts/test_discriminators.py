"""What every registered discriminator keeps."""

import inspect
import re

import pytest
import torch

from smalti.config import build, config_of
from smalti.config.schema import option_parameters
from smalti.discriminators import Discriminator
from smalti.registry import short_name
from tests.contracts.examples import options_of, registered

DISCRIMINATORS = [pytest.param(cls, id=short_name(cls)) for cls in registered(Discriminator)]
every_discriminator = pytest.mark.parametrize("cls", DISCRIMINATORS)
BATCH, SIZE = 3, 32


def make(cls):
    torch.manual_seed(0)
    small = {"channels": 8} if "channels" in option_parameters(cls) else {}
    return cls(**{**options_of(cls), **small})


def images(dtype=torch.float32, channels=3):
    generator = torch.Generator().manual_seed(1)
    return (2.0 * torch.rand(BATCH, channels, SIZE, SIZE, generator=generator) - 1.0).to(dtype)


@every_discriminator
def test_logits_and_features_have_the_batch_in_front(cls):
    output = make(cls)(images())
    assert output.logits.shape[0] == BATCH
    assert isinstance(output.features, tuple)
    assert all(feature.shape[0] == BATCH for feature in output.features)


@every_discriminator
def test_gradient_reaches_images_and_all_parameters(cls):
    discriminator, x = make(cls), images().requires_grad_()
    discriminator(x).logits.square().mean().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0.0
    assert all(parameter.grad is not None for parameter in discriminator.parameters())


@every_discriminator
def test_in_evaluation_each_sample_is_judged_by_itself(cls):
    discriminator = make(cls).double()
    x = images(torch.float64)
    discriminator(x)
    discriminator.eval()
    torch.testing.assert_close(discriminator(x).logits[:1], discriminator(x[:1]).logits)


@every_discriminator
def test_state_round_trip_gives_equal_logits(cls):
    first, second = make(cls), make(cls)
    first(images())
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(0.01)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.eval()(images()).logits, second.eval()(images()).logits)


@every_discriminator
def test_build_of_config_rebuilds_it(cls):
    discriminator = make(cls)
    rebuilt = build(config_of(discriminator), Discriminator)
    assert config_of(rebuilt) == config_of(discriminator)
    shapes = {key: value.shape for key, value in discriminator.state_dict().items()}
    assert {key: value.shape for key, value in rebuilt.state_dict().items()} == shapes


@every_discriminator
def test_wrong_input_is_a_clear_error(cls):
    discriminator = make(cls)
    with pytest.raises(ValueError, match="images"):
        discriminator(images()[:, :1])
    with pytest.raises(ValueError, match="images of 1 x 1 pixels"):
        discriminator(images()[:, :, :1, :1])
    with pytest.raises(ValueError, match="condition"):
        discriminator(images(), images())


@every_discriminator
def test_is_built_on_the_meta_device(cls):
    with torch.device("meta"):
        discriminator = cls(**options_of(cls))
    assert all(parameter.is_meta for parameter in discriminator.parameters())


@every_discriminator
def test_docstring_has_shapes_source_and_options(cls):
    assert re.search(r"\(B\b", cls.__doc__), "no tensor shape"
    assert re.search(r"arXiv:\d{4}\.\d{4,5}", cls.__doc__), "no source"
    for option in inspect.signature(cls).parameters:
        assert re.search(rf"^\s+{option}: ", cls.__doc__, re.MULTILINE), f"option {option} is not described"
