"""What codebooks are used for, against numpy, and merged over parts."""

import numpy as np
import pytest
import torch

from smalti.metrics import Observation
from smalti.metrics.codebook_report import CodebookReport, zipf_exponent
from smalti.outputs import BottleneckOutput

IMAGES = torch.zeros(2, 3, 4, 4)


def seen(latent: torch.Tensor, indices: torch.Tensor | None = None) -> Observation:
    sizes = {} if indices is None else {f"book{number}": 16 for number in range(indices.shape[1])}
    bottleneck = BottleneckOutput(latent=latent, indices=indices)
    return Observation(target=IMAGES, reconstruction=IMAGES, bottleneck=bottleneck, codebook_sizes=sizes)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
def test_a_power_law_has_its_exponent(exponent: float) -> None:
    counts = (1e9 * torch.arange(1.0, 41.0, dtype=torch.float64) ** -exponent).round().long()
    shuffled = torch.cat([counts, torch.zeros(9, dtype=torch.int64)])[torch.randperm(49)]
    assert float(zipf_exponent(shuffled)) == pytest.approx(exponent, abs=1e-5)
    assert zipf_exponent(torch.tensor([0, 7])).isnan()


def test_a_report_has_the_numbers_of_each_codebook() -> None:
    metric = CodebookReport()
    accumulator = metric.create()
    indices = torch.randint(0, 9, (2, 2, 8, 8), generator=torch.Generator().manual_seed(0))
    metric.begin(accumulator, {"book0": 16, "book1": 16})
    for part in indices.split(1):
        metric.update(accumulator, seen(torch.zeros(1, 1, 1, 1), part))
    found = accumulator.compute()
    for number in range(2):
        counts = np.bincount(indices[:, number].flatten().numpy(), minlength=16)
        shares = counts[counts > 0] / counts.sum()
        bits = -(shares * np.log2(shares)).sum()
        expected = {"usage": (counts > 0).mean(), "perplexity": 2**bits, "entropy": bits, "largest": shares.max()}
        for name, value in expected.items():
            assert float(found[f"codebook_report/book{number}/{name}"]) == pytest.approx(value)
        assert f"codebook_report/book{number}/zipf" in found
