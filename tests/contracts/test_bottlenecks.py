"""What every registered bottleneck keeps, found in its folder, without a table."""

import copy

import pytest
import torch

from smalti.bottlenecks import Bottleneck
from smalti.config import build, config_of
from smalti.config.schema import option_parameters
from smalti.registry import names, resolve, short_name
from tests.quantized import branch

BATCH, CHANNELS, HEIGHT, WIDTH = 2, 6, 3, 5
# Values for options without a default, and for those whose default is too large for a test, by the option's name.
SIZES = {
    "in_channels": CHANNELS,
    "latent_channels": 4,
}


def codebooks():
    return {"texture": branch(8, 4), "shape": branch(6, 3, normalize=True)}


CLASSES = [pytest.param(resolve(name, Bottleneck), id=name) for name in names(Bottleneck)]
every_bottleneck = pytest.mark.parametrize("cls", CLASSES)


def make(cls):
    torch.manual_seed(0)
    sizes = {**SIZES, "codebooks": codebooks()}
    return cls(**{name: value for name, value in sizes.items() if name in option_parameters(cls)}).double()


def features(**options):
    return torch.randn(BATCH, CHANNELS, HEIGHT, WIDTH, dtype=torch.float64, **options)


def state(module):
    return copy.deepcopy(module.state_dict())


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@every_bottleneck
@pytest.mark.parametrize("training", [True, False])
def test_output_has_the_promised_fields_and_shapes(cls, training):
    bottleneck = make(cls).train(training)
    output = bottleneck(features())
    filled = {
        "indices": output.indices is not None,
        "codebooks": bool(output.codebooks),
        "posterior": output.posterior is not None,
    }
    assert {name for name, there in filled.items() if there} == bottleneck.provides
    assert output.latent.shape == (BATCH, bottleneck.latent_channels, HEIGHT, WIDTH)
    assert list(output.codebooks) == list(bottleneck.codebook_sizes)
    if output.indices is not None:
        assert output.indices.shape == (BATCH, len(output.codebooks), HEIGHT, WIDTH)
        assert output.indices.dtype == torch.int64
    for group, (name, size) in enumerate(bottleneck.codebook_sizes.items()):
        record = output.codebooks[name]
        assert torch.equal(record.indices, output.indices[:, group])
        assert record.codebook.shape[0] == size
        assert record.z.shape == record.quantized.shape == record.latent.shape
        chosen = record.codebook[record.indices].permute(0, 3, 1, 2)
        assert torch.equal(record.quantized, chosen)
    if output.posterior is not None:
        assert output.posterior.mean.shape == output.posterior.logvar.shape == output.latent.shape


@every_bottleneck
def test_gradient_reaches_the_features_in_training(cls):
    values = features(requires_grad=True)
    make(cls)(values).latent.square().sum().backward()
    assert values.grad.abs().sum() > 0.0


@every_bottleneck
def test_evaluation_repeats_itself_and_runs_without_gradients(cls):
    bottleneck, values = make(cls).eval(), features()
    with torch.no_grad():
        first, second = bottleneck(values), bottleneck(values)
    assert torch.equal(first.latent, second.latent)
    assert not first.latent.requires_grad


@every_bottleneck
def test_given_noise_decides_the_training_pass(cls):
    bottleneck, values = make(cls), features()
    noise = torch.randn(BATCH, bottleneck.latent_channels, HEIGHT, WIDTH, dtype=torch.float64)
    assert torch.equal(bottleneck(values, noise).latent, bottleneck(values, noise).latent)


@every_bottleneck
def test_lookup_of_indices_is_the_latent_bit_for_bit(cls):
    bottleneck = make(cls).eval()
    output = bottleneck(features())
    if output.indices is None:
        with pytest.raises(TypeError, match="continuous"):
            bottleneck.lookup(torch.zeros(1, 1, 2, 2, dtype=torch.int64))
    else:
        assert torch.equal(bottleneck.lookup(output.indices), output.latent)


@every_bottleneck
@pytest.mark.parametrize("training", [True, False])
def test_forward_changes_no_state(cls, training):
    bottleneck = make(cls).train(training)
    before = state(bottleneck)
    bottleneck(features())
    assert equal(before, bottleneck.state_dict())


@every_bottleneck
def test_update_is_deterministic_and_restored_by_the_state_dict(cls):
    bottleneck = make(cls)
    outputs = [bottleneck(features()) for _ in range(3)]
    bottleneck.update(outputs[:2])
    restored = make(cls)
    restored.load_state_dict(state(bottleneck))
    bottleneck.update(outputs)
    torch.manual_seed(1)
    restored.update(outputs)
    assert equal(bottleneck.state_dict(), restored.state_dict())
    values = features()
    assert torch.equal(bottleneck.eval()(values).latent, restored.eval()(values).latent)


@every_bottleneck
def test_build_of_config_rebuilds_it(cls):
    bottleneck = make(cls)
    rebuilt = build(config_of(bottleneck), Bottleneck)
    assert type(rebuilt) is cls
    assert config_of(rebuilt) == config_of(bottleneck)
    assert config_of(bottleneck)["type"] == short_name(cls)
    assert rebuilt.double().load_state_dict(bottleneck.state_dict())


@every_bottleneck
def test_bfloat16_autocast_keeps_the_arithmetic_wide(cls):
    bottleneck, values = make(cls).float().eval(), features().float()
    plain = bottleneck(values).latent
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = bottleneck(values).latent
    if bottleneck.provides:
        assert torch.equal(plain, cast)
    else:
        torch.testing.assert_close(plain, cast.float(), rtol=0.05, atol=0.05)


@every_bottleneck
def test_works_in_bfloat16_throughout(cls):
    output = make(cls).bfloat16()(features().bfloat16())
    assert output.latent.isfinite().all()


@every_bottleneck
def test_docstring_names_every_option(cls):
    for option in option_parameters(cls):
        assert f"        {option}: " in cls.__doc__, option
