"""Variety of the made images, beside that of the real ones: what a collapsed generator has lost."""

import torch
from torch import Tensor

from smalti.metrics._set_metric import SetMetric

LIMIT = 2048


def mean_distance(images: Tensor) -> Tensor:
    """Mean Euclidean distance of two different images of (N, ...), a scalar in float64; 0 for a single image.

    Example:
        >>> mean_distance(torch.tensor([[0.0], [1.0], [2.0]]))
        tensor(1.3333, dtype=torch.float64)
    """
    if len(images) < 2:
        return images.new_zeros((), dtype=torch.float64)
    return torch.pdist(images.detach().double().reshape(len(images), -1)).mean()


class SampleDiversity(SetMetric):
    """Mean distance of two made images over that of two real ones, images (B, C, H, W) (cf. arXiv:1606.03498).

    1 means as varied as the data, 0 that all images are the same one. Noise is varied, too: this finds collapse, not
    quality.
    """

    higher_is_better = None

    def summarize(self, real: Tensor, made: Tensor) -> dict[str, Tensor]:
        """``sample_diversity`` of real and made images, each with shape (N, C, H, W)."""
        made_distance, real_distance = mean_distance(made[:LIMIT]), mean_distance(real[:LIMIT])
        return {"sample_diversity": made_distance / real_distance.clamp_min(1e-12)}
