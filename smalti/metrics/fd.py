"""FD: the Frechet distance in the features of any network, called after it."""

from smalti.extractors import Extractor
from smalti.extractors.dinov2 import DINOv2
from smalti.metrics._feature_metric import FrechetMetric
from smalti.metrics._features import label
from smalti.metrics._jackknife import Groups


class FD(FrechetMetric):
    """Frechet distance of made from real images (B, C, H, W) in any features (cf. Stein et al., arXiv:2306.04675).

    As ``fid``, in the last feature of a network, averaged over places if it has any: ``fd_dinov2_small`` of DINOv2,
    ``fd_random_inception`` of Inception-v3 with random weights.

    Args:
        extractor: the network; None for :class:`smalti.extractors.dinov2.DINOv2`, small and pretrained.
        reference: an .npz file with ``mu`` (d,) and ``sigma`` (d, d) to measure the made images against; None: the real
            images.
        groups: of images, left out in turn for ``_low`` and ``_high``, where the value lies with 95 %; 0: neither.
    """

    def __init__(self, extractor: Extractor | None = None, reference: str | None = None, groups: Groups = 0) -> None:
        network = DINOv2() if extractor is None else extractor
        super().__init__(network, f"fd_{label(network)}", "fd", reference, ("mu", "sigma"), groups)
