"""Statistics of latents against numpy and scipy, merged over parts, of constant channels and of posteriors."""

import numpy as np
import pytest
import torch

from smalti.metrics import Observation
from smalti.metrics._latent_moments import merged_sums, sums_of
from smalti.metrics.latent_statistics import LatentStatistics, effective_rank
from smalti.outputs import BottleneckOutput, DiagonalGaussian
from smalti.registry import UserError

stats = pytest.importorskip("scipy.stats")


def seen(latent: torch.Tensor, posterior: DiagonalGaussian | None = None) -> Observation:
    images = torch.zeros(len(latent), 3, 4, 4)
    bottleneck = BottleneckOutput(latent=latent, posterior=posterior)
    return Observation(target=images, reconstruction=images, bottleneck=bottleneck, codebook_sizes={})


def found_of(*observations: Observation) -> dict[str, float]:
    metric = LatentStatistics()
    accumulator = metric.create()
    for observation in observations:
        metric.update(accumulator, observation)
    return {name: float(value) for name, value in accumulator.compute().items()}


def latents(far: float = 8.0) -> torch.Tensor:
    """Channels that are skewed, correlated and far from 0."""
    z = torch.randn(6, 4, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z[:, 1] = z[:, 1].exp()
    z[:, 2] = 0.5 * z[:, 0] + far
    return z


def test_numbers_are_numpys_and_scipys() -> None:
    z = latents(far=1e4)
    rows = z.movedim(1, -1).reshape(-1, 4).numpy()
    found = found_of(seen(z))
    for channel in range(4):
        column = rows[:, channel]
        expected = {"mean": column.mean(), "std": column.std()}
        expected |= {"skewness": stats.skew(column), "kurtosis": stats.kurtosis(column)}
        for name, value in expected.items():
            assert found[f"latent_statistics_{name}/{channel}"] == pytest.approx(value, rel=1e-7), name
    assert found["latent_statistics_std"] == pytest.approx(rows.std())
    assert found["latent_statistics_mean"] == pytest.approx(rows.mean())
    assert found["latent_statistics_kurtosis"] == pytest.approx(stats.kurtosis(rows, axis=0).mean(), rel=1e-7)
    shares = np.linalg.eigvalsh(np.cov(rows.T))
    shares = shares[shares > 1e-12] / shares.sum()
    assert found["latent_statistics_effective_rank"] == pytest.approx(
        np.exp(-(shares * np.log(shares)).sum()), rel=1e-6
    )
    assert found["latent_statistics_constant"] == 0


@pytest.mark.parametrize("cuts", [(1, 2, 3, 4, 5), (4,), (0, 3, 3)])
def test_any_split_gives_the_whole(cuts: tuple[int, ...]) -> None:
    z = latents()
    parts = [sums_of(part) for part in torch.tensor_split(z, cuts)]
    whole = sums_of(z)
    scale = whole.abs().clamp_min(1e-300)
    for order in (parts, parts[::-1], [merged_sums(parts[:1]), merged_sums(parts[1:])]):
        # relative to each moment's own size: a sum of cubes about the mean may itself be nearly 0
        sizes = torch.maximum(scale, whole[-5].abs().max() * 1e-3)
        assert ((merged_sums(order) - whole).abs() / sizes).max() < 1e-12
    single, together = found_of(*(seen(part) for part in torch.tensor_split(z, cuts))), found_of(seen(z))
    assert single == pytest.approx(together, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("value", [0.0, -1e5, 1.0 / 3.0])
def test_what_never_changes_is_counted_and_has_no_shape(value: float) -> None:
    z = latents()
    z[:, 3] = value
    found = found_of(*(seen(part) for part in z.split(1)))
    assert found["latent_statistics_constant"] == 1
    assert found["latent_statistics_std/3"] == found["latent_statistics_std_lowest"] == 0.0
    assert "latent_statistics_kurtosis/3" not in found
    assert all(np.isfinite(number) for number in found.values())
    same = found_of(seen(torch.full((3, 2, 4, 4), value)))
    assert same["latent_statistics_effective_rank"] == 0.0
    assert "latent_statistics_kurtosis" not in same
    metric = LatentStatistics()
    accumulator = metric.create()
    metric.update(accumulator, seen(z))
    accumulator.compute()
    assert metric.warnings(accumulator) == ("1 of 4 channels never change",)


def test_a_posterior_has_its_divergence_and_the_deviation_of_its_samples() -> None:
    random = torch.Generator().manual_seed(1)
    mean, logvar = (torch.randn(3, 2, 4, 4, generator=random, dtype=torch.float64) for _ in range(2))
    posterior = DiagonalGaussian(mean, logvar)
    found = found_of(*(seen(mean[i : i + 1], DiagonalGaussian(mean[i : i + 1], logvar[i : i + 1])) for i in range(3)))
    assert found["latent_statistics_kl"] == pytest.approx(float(posterior.kl().sum()) / mean.numel(), rel=1e-12)
    noise = torch.randn(20_000, *mean.shape, generator=random, dtype=torch.float64)
    assert found["latent_statistics_std_sampled"] == pytest.approx(
        float((mean + posterior.std * noise).std()), rel=1e-2
    )
    standard = DiagonalGaussian(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4))
    assert found_of(seen(standard.mean, standard))["latent_statistics_kl"] == 0.0


def test_a_normal_sample_is_normal_and_uses_all_channels() -> None:
    z = torch.randn(64, 8, 16, 16, generator=torch.Generator().manual_seed(2))
    found = found_of(seen(z))
    for name, value, error in (
        ("std", 1, 0.01),
        ("skewness", 0, 0.02),
        ("kurtosis", 0, 0.05),
        ("effective_rank", 8, 0.01),
    ):
        assert found[f"latent_statistics_{name}"] == pytest.approx(value, abs=error)
    line = torch.randn(9, 1, generator=torch.Generator().manual_seed(3)) * torch.tensor([[1.0, -2.0, 0.5]])
    assert float(effective_rank(torch.cov(line.T))) == pytest.approx(1.0, abs=1e-4)


def test_without_a_latent_nothing_is_said_and_widths_do_not_change() -> None:
    metric = LatentStatistics()
    accumulator = metric.create()
    metric.update(accumulator, seen(torch.zeros(2, 0, 4, 4)))
    metric.update(accumulator, seen(torch.zeros(2, 1, 4, 4, dtype=torch.int64)))
    with pytest.warns(UserWarning, match="before the"):
        assert accumulator.compute() == {}
    assert metric.warnings(accumulator) == ("it has no latent",)
    metric.update(accumulator, seen(torch.zeros(2, 3, 4, 4)))
    with pytest.raises(UserError, match="a latent has 5 channels, another had 3"):
        metric.update(accumulator, seen(torch.zeros(2, 5, 4, 4)))
