"""FID: the Frechet distance of Inception-v3's features, and nothing else by that name."""

from typing import ClassVar

from smalti.extractors import Extractor
from smalti.metrics._feature_metric import FrechetMetric
from smalti.metrics._jackknife import Groups


class FID(FrechetMetric):
    """Frechet distance of made from real images (B, C, H, W) in Inception-v3 (Heusel et al., arXiv:1706.08500).

    Between normal distributions with the mean and covariance, unbiased and in float64, of the 2048 features. Real are
    the images that the made ones are reconstructions of. It falls with the number of images: a warning stands beside it
    below 10,000 and where the covariance has no full rank. It is called ``fid`` with the published network at its last
    layer only; with random weights ``fd_random_inception``, and with others after them.

    Args:
        extractor: the network; None for :class:`smalti.extractors.inception_v3.InceptionV3`, pretrained.
        reference: an .npz file with ``mu`` (d,) and ``sigma`` (d, d), as they are published, to measure the made images
            against; None: the real images.
        groups: of images, left out in turn for ``_low`` and ``_high``, where the value lies with 95 %; 0: neither.
    """

    aliases: ClassVar[tuple[str, ...]] = ("fd_",)

    def __init__(self, extractor: Extractor | None = None, reference: str | None = None, groups: Groups = 0) -> None:
        super().__init__(extractor, "fid", "fd", reference, ("mu", "sigma"), groups)
