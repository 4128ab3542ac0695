"""Encoder and decoder: every option gives the promised sizes and gradients; impossible combinations are named."""

import inspect

import pytest
import torch

from smalti.config import build, config_of
from smalti.models import Decoder, Encoder
from smalti.models.conv import ConvDecoder, ConvEncoder

TINY = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "groups": 4}
VARIANTS = {
    "plain": {},
    "batch_norm": {"norm": "batch", "groups": 3},
    "no_norm": {"norm": "none", "groups": 5},
    "dropout": {"dropout": 0.2},
    "pooling": {"resample": "pool"},
    "patches": {"patch_size": 2},
    "patches_of_three": {"patch_size": 3},
    "one_level": {"multipliers": (3,), "patch_size": 4},
    "attention_everywhere": {"attention_levels": (0, 1)},
    "attention_nowhere": {"middle_attention": False},
    "no_middle": {"middle_blocks": 0, "middle_attention": False},
    "long_middle": {"middle_blocks": 3},
    "gray": {"image_channels": 1},
    "rgba": {"image_channels": 4},
    "two_blocks": {"blocks": 2, "multipliers": (1, 2, 2)},
}
every_variant = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)


def encoder(**options):
    return ConvEncoder(**{**TINY, "out_channels": 6, **options})


def decoder(**options):
    return ConvDecoder(**{**TINY, "latent_channels": 3, "z_channels": 6, **options})


@every_variant
def test_encoder_divides_and_decoder_multiplies_by_the_factor(options):
    first, second = encoder(**options), decoder(**options)
    levels, patch = len(options.get("multipliers", (1, 2))), options.get("patch_size", 1)
    assert first.factor == second.factor == patch * 2 ** (levels - 1)
    images = torch.randn(2, options.get("image_channels", 3), 2 * first.factor, 3 * first.factor, requires_grad=True)
    features = first(images)
    assert features.shape == (2, first.out_channels, 2, 3)
    latent = torch.randn(2, 3, 2, 3, requires_grad=True)
    made = second(latent)
    assert made.shape == images.shape
    features.square().mean().backward()
    made.square().mean().backward()
    assert images.grad.abs().sum() > 0.0
    assert latent.grad.abs().sum() > 0.0
    assert all(parameter.grad is not None for parameter in [*first.parameters(), *second.parameters()])
    assert second.last_layer.shape[0] == images.shape[1] * patch**2
    assert second.last_layer is list(second.parameters())[-2]


@every_variant
def test_build_of_config_rebuilds_it(options):
    for made, base in ((encoder(**options), Encoder), (decoder(**options), Decoder)):
        rebuilt = build(config_of(made), base)
        assert config_of(rebuilt) == config_of(made)
        assert rebuilt.load_state_dict(made.state_dict())


def test_encoder_without_head_ends_at_its_middle():
    bare = encoder(out_channels=None)
    assert bare.out_channels == 16
    assert bare(torch.randn(1, 3, 4, 4)).shape == (1, 16, 2, 2)
    assert bare.head is None


def test_decoder_without_projection_takes_the_latent_as_it_is():
    bare = decoder(z_channels=None)
    assert bare(torch.randn(1, 3, 2, 2)).shape == (1, 3, 4, 4)
    assert bare.conv_in.in_channels == 3


def test_decoder_has_one_block_more_than_the_encoder_and_runs_coarse_to_fine():
    first, second = encoder(blocks=2, multipliers=(1, 2, 3)), decoder(blocks=2, multipliers=(1, 2, 3))
    assert [len(level.blocks) for level in first.levels] == [2, 2, 2]
    assert [len(level.blocks) for level in second.levels] == [3, 3, 3]
    assert [level.blocks[-1].conv2.out_channels for level in first.levels] == [8, 16, 24]
    assert [level.blocks[-1].conv2.out_channels for level in second.levels] == [24, 16, 8]


def test_attention_levels_are_counted_from_the_finest_in_both():
    for made, position in ((encoder(attention_levels=(1,)), 1), (decoder(attention_levels=(1,)), 0)):
        with_attention = [any(True for _ in level.attentions.parameters()) for level in made.levels]
        assert with_attention == [index == position for index in range(2)]


def test_memory_format_does_not_change_the_result():
    for made, shape in ((encoder(attention_levels=(1,)), (2, 3, 8, 12)), (decoder(), (2, 3, 4, 6))):
        x = torch.randn(shape, dtype=torch.float64)
        expected = made.double().eval()(x)
        last = made.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(last, expected)


def test_inputs_are_cast_to_the_weights():
    assert encoder().bfloat16()(torch.randn(1, 3, 4, 4)).dtype == torch.bfloat16
    assert decoder().double()(torch.randn(1, 3, 2, 2)).dtype == torch.float64


@pytest.mark.parametrize("make", [encoder, decoder])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 32}, "groups=32: expected a divisor of every width, and one width is"),
        ({"multipliers": ()}, r"multipliers=\[\]: expected one width multiplier per level"),
        ({"multipliers": (1, 0)}, r"multipliers\[1\]=0: expected a positive"),
        ({"attention_levels": (2,)}, r"attention_levels=\[2\]: expected levels from 0 \(the finest\) to 1"),
        ({"middle_blocks": 0}, "middle_attention=True: expected middle_blocks of at least 1"),
        ({"blocks": 0}, "blocks=0: expected a positive"),
        ({"patch_size": 0}, "patch_size=0: expected a positive"),
        ({"norm": "layer"}, "norm='layer': expected 'group', 'batch' or 'none'"),
        ({"resample": "blur"}, "resample='blur': expected 'conv' or 'pool'"),
        ({"dropout": 1.5}, "dropout"),
    ],
)
def test_impossible_options_are_named(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


@pytest.mark.parametrize("cls", [ConvEncoder, ConvDecoder])
def test_docstring_names_every_option(cls):
    for option in list(inspect.signature(cls).parameters):
        assert f"        {option}: " in cls.__doc__, option
