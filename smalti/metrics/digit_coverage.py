"""Which digits a generator makes, and how evenly: the classes of the nearest real digits."""

from math import log

import torch
from torch import Tensor
from torch.nn import functional as F

from smalti.data import ImageSource
from smalti.data.digits import Digits
from smalti.data.transforms import Transform
from smalti.metrics._set_metric import SetMetric, images_of
from smalti.registry import UserError


def histogram_entropy(counts: Tensor) -> Tensor:
    """-sum p ln p / ln K of ``counts`` with shape (K,), a scalar in [0, 1]: 1 if all are equal.

    Example:
        >>> histogram_entropy(torch.tensor([2, 2])), histogram_entropy(torch.tensor([4, 0]))
        (tensor(1., dtype=torch.float64), tensor(0., dtype=torch.float64))
    """
    shares = counts.double() / counts.sum().clamp_min(1)
    entropy: Tensor = torch.special.entr(shares).sum() / log(len(counts))
    return entropy.abs()


class DigitCoverage(SetMetric):
    """Number of digits among the made images (B, C, H, W), and the entropy of their histogram (cf. arXiv:1606.03498).

    A made image counts as the class of the nearest reference digit, by the Euclidean distance of grey pixels at the
    reference's size. A digit is covered if it has at least a fifth of an even share. ``digit_coverage/entropy`` is 1 if
    all digits are made equally often.

    Args:
        reference: labelled images; None: the training part of scikit-learn's digits.
    """

    higher_is_better = True

    def __init__(self, reference: ImageSource | None = None) -> None:
        self.reference = reference

    def summarize(self, real: Tensor, made: Tensor) -> dict[str, Tensor]:
        """``digit_coverage`` and its entropy, of made images with shape (N, C, H, W)."""
        images, labels = images_of(self.reference or Digits("train"), Transform())
        if labels is None:
            raise ValueError("reference: expected a source with a column 'label'")
        if labels.is_floating_point() or int(labels.min()) < 0:
            raise UserError(f"reference: label {labels.min().item():g}: expected whole numbers >= 0")
        images, labels = images.to(made.device), labels.to(made.device)
        pixels = F.adaptive_avg_pool2d(made.mean(dim=1, keepdim=True), (images.shape[-2], images.shape[-1]))
        distances = torch.cdist(pixels.flatten(1), images.mean(dim=1).flatten(1))
        counts = torch.bincount(labels[distances.argmin(dim=1)], minlength=int(labels.max()) + 1)
        covered = counts >= 0.2 * len(made) / len(counts)
        return {"digit_coverage": covered.sum().double(), "digit_coverage/entropy": histogram_entropy(counts)}
