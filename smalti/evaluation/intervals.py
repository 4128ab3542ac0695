"""How sure a mean over images is: percentile bootstrap (Efron, 1979, doi:10.1214/aos/1176344552)."""

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95


def interval(values: list[float]) -> tuple[float, float] | None:
    """The 95 % interval of the mean of values, one of each image, by 1000 seeded resamples; None of fewer than two.

    Values that are not finite give None: neither their mean nor its spread says anything.

    Example:
        >>> low, high = interval([1.0, 2.0, 3.0, 4.0])
        >>> 1.0 <= low < 2.5 < high <= 4.0
        True
    """
    numbers = np.asarray(values, dtype=np.float64)
    if len(numbers) < 2 or not np.isfinite(numbers).all():
        return None
    generator = np.random.default_rng(0)
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, 50):  # of many images all draws at once would take gigabytes
        drawn = generator.integers(0, len(numbers), size=(min(50, RESAMPLES - start), len(numbers)))
        means[start : start + len(drawn)] = numbers[drawn].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
