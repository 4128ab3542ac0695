"""FD: the Frechet distance in the features of any network, called after it."""

from smalti.extractors import Extractor
from smalti.metrics._feature_metric import FrechetMetric
from smalti.metrics._features import label


class FD(FrechetMetric):
    """Frechet distance of made from real images (B, C, H, W) in any features (cf. Stein et al., arXiv:2306.04675).

    As ``fid``, in the last feature of a network, averaged over places if it has any: ``fd_dinov2_small`` of DINOv2,
    ``fd_random_inception`` of Inception-v3 with random weights.

    Args:
        extractor: the network.
        reference: an .npz file with ``mu`` (d,) and ``sigma`` (d, d) to measure the made images against; None: the real
            images.
    """

    def __init__(self, extractor: Extractor, reference: str | None = None) -> None:
        own = f"fd_{label(extractor)}"
        super().__init__(extractor, own, "fd", reference, ("mu", "sigma"))
