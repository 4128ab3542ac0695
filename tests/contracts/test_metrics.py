"""What every registered metric keeps, found in its folder, without a table: sums of shards, names, words."""

import inspect
import re

import pytest
import torch

from smalti.config import build, config_of
from smalti.config.schema import option_parameters
from smalti.metrics import Metric, Observation, Prediction
from smalti.outputs import BottleneckOutput, TokensOutput
from smalti.registry import names, short_name
from tests.contracts.examples import options_of, registered

METRICS = [pytest.param(cls, id=short_name(cls)) for cls in registered(Metric)]
every_metric = pytest.mark.parametrize("cls", METRICS)
# One of both is measured as a metric of images here, and as one of tokens in tests/metrics/test_predicted_tokens.py.
every_metric_of_images = pytest.mark.parametrize(
    "cls", [case for case in METRICS if "images" in case.values[0].observes]
)
SIZES = {"first": 5, "second": 3}


def make(cls):
    return cls(**options_of(cls))


def observe(seed, images=2, dtype=torch.float32):
    random = torch.Generator().manual_seed(seed)
    target = (torch.rand(images, 3, 16, 16, generator=random) * 2 - 1).to(dtype)
    made = target + 0.3 * torch.randn(target.shape, generator=random).to(dtype)
    indices = torch.stack([torch.randint(0, size, (images, 2, 2), generator=random) for size in SIZES.values()], dim=1)
    bottleneck = BottleneckOutput(latent=torch.zeros(images, 1, 2, 2), indices=indices)
    return Observation(target=target, reconstruction=made, bottleneck=bottleneck, codebook_sizes=SIZES)


def predict(seed, images=2):
    """What a model of tokens gives, with scores that are as good as none."""
    random = torch.Generator().manual_seed(seed)
    logits = {name: torch.randn(images, 2, 2, size, generator=random) for name, size in SIZES.items()}
    planes = [torch.randint(0, size, (images, 2, 2), generator=random) for size in SIZES.values()]
    return TokensOutput(logits=logits, indices=torch.stack(planes, dim=1))


def see(cls, seed, images=2):
    """What a metric observes, images if it can."""
    return observe(seed, images) if "images" in cls.observes else Prediction.of(predict(seed, images), factor=4)


def accumulate(metric, *observations):
    accumulator = metric.create()
    metric.begin(accumulator, SIZES)
    for observation in observations:
        metric.update(accumulator, observation)
    return accumulator


def values_of(accumulator):
    return {name: float(value) for name, value in accumulator.compute().items()}


@every_metric
def test_gives_finite_numbers_called_by_its_name(cls):
    metric = make(cls)
    accumulator = accumulate(metric, see(cls, 0))
    values = values_of(accumulator)
    assert values
    assert all(name.startswith((short_name(cls), *cls.aliases)) for name in values)
    assert all(isinstance(sentence, str) for sentence in metric.warnings(accumulator))
    assert all(torch.isfinite(torch.tensor(value)) for value in values.values())


@every_metric
def test_shards_add_up_to_the_whole(cls):
    metric, seen = make(cls), [see(cls, 0), see(cls, 1, images=3), see(cls, 2, images=1)]
    whole = values_of(accumulate(metric, *seen))
    for cut in range(3):  # also a shard without a batch
        merged = accumulate(metric, *seen[cut:])
        merged.merge_state(accumulate(metric, *seen[:cut]))
        assert values_of(merged) == pytest.approx(whole, rel=1e-12)


@every_metric_of_images
def test_how_images_are_batched_does_not_matter(cls):
    metric, seen = make(cls), observe(0, images=3)
    single = [
        Observation(
            target=seen.target[i : i + 1],
            reconstruction=seen.reconstruction[i : i + 1],
            bottleneck=BottleneckOutput(latent=torch.zeros(1, 1, 2, 2), indices=seen.bottleneck.indices[i : i + 1]),
            codebook_sizes=SIZES,
        )
        for i in range(3)
    ]
    assert values_of(accumulate(metric, *single)) == pytest.approx(values_of(accumulate(metric, seen)), rel=1e-5)


@every_metric
def test_values_of_single_images_are_what_is_averaged(cls):
    metric, seen = make(cls), see(cls, 0, images=3)
    single = metric.per_image(seen)
    for name, values in single.items():
        assert values.shape == (3,)
        mean = values_of(accumulate(metric, seen))[name]
        assert values.double().mean().item() == pytest.approx(mean, rel=1e-6)


@every_metric_of_images
def test_better_images_are_better(cls):
    """In the direction that ``higher_is_better`` says, for metrics of images."""
    metric, seen = make(cls), observe(0)
    if not metric.per_image(seen):
        return
    closer = Observation(
        target=seen.target,
        reconstruction=(seen.target + seen.reconstruction) / 2,
        bottleneck=seen.bottleneck,
        codebook_sizes=SIZES,
    )
    far, near = (values_of(accumulate(metric, images)) for images in (seen, closer))
    assert all((near[name] > far[name]) == metric.higher_is_better for name in far)


@every_metric_of_images
def test_half_precision_reconstructions_are_measured_in_single(cls):
    metric, seen = make(cls), observe(0, dtype=torch.bfloat16)
    exact = Observation(
        target=seen.target.float(),
        reconstruction=seen.reconstruction.float(),
        bottleneck=seen.bottleneck,
        codebook_sizes=SIZES,
    )
    assert values_of(accumulate(metric, seen)) == values_of(accumulate(metric, exact))


@every_metric
def test_reset_forgets_everything(cls):
    metric = make(cls)
    accumulator = accumulate(metric, see(cls, 0))
    accumulator.reset()
    metric.update(accumulator, see(cls, 1))
    assert values_of(accumulator) == values_of(accumulate(metric, see(cls, 1)))


@every_metric
def test_build_of_config_rebuilds_it(cls):
    metric = make(cls)
    rebuilt = build(config_of(metric), Metric)
    assert type(rebuilt) is cls
    assert config_of(rebuilt) == config_of(metric)
    assert values_of(accumulate(rebuilt, see(cls, 0))) == values_of(accumulate(metric, see(cls, 0)))


@every_metric
def test_docstring_has_shapes_source_and_options(cls):
    text = f"{cls.__doc__}{inspect.getmodule(cls).__doc__}"
    assert re.search(r"\(B\b", text), "no tensor shape"
    assert re.search(r"arXiv:\d{4}\.\d{4,5}|doi:|et al\.", text), "no source"
    for name, option in option_parameters(cls).items():
        assert option.annotation is not inspect.Parameter.empty
        assert re.search(rf"^\s+{name}: ", cls.__doc__, re.MULTILINE), f"option {name} is not described"


def test_metrics_of_this_issue_are_found():
    wanted = {"psnr", "psnr_uint8", "ssim", "lpips", "codebook_usage", "perplexity", "bits_per_image"}
    assert wanted <= set(names(Metric))
