"""sFID: the Frechet distance of features that know where in the image they are."""

from typing import ClassVar

from torch import Tensor

from smalti.extractors import Extractor
from smalti.extractors._inception import SPATIAL_CHANNELS, Layer
from smalti.metrics import Observation
from smalti.metrics._feature_metric import FrechetMetric
from smalti.metrics._features import Side, features_of
from smalti.metrics._jackknife import Groups
from smalti.registry import UserError


class SFID(FrechetMetric):
    """Frechet distance of made from real images (B, C, H, W) in features at places (Nash et al., arXiv:2103.03841).

    As ``fid``, of 7 channels at each of 17 x 17 places in the middle of Inception-v3 (2023 features): what is where
    counts. With other networks it is ``sfd_`` and their name, and the first 7 channels of their last feature.

    Args:
        extractor: the network; None for :class:`smalti.extractors.inception_v3.InceptionV3`, pretrained.
        reference: an .npz file with ``mu_s`` (d,) and ``sigma_s`` (d, d), as they are published, to measure the made
            images against; None: the real images.
        groups: of images, left out in turn for ``_low`` and ``_high``, where the value lies with 95 %; 0: neither.
    """

    aliases: ClassVar[tuple[str, ...]] = ("sfd_",)
    layers: ClassVar[tuple[Layer, ...]] = ("spatial",)

    def __init__(self, extractor: Extractor | None = None, reference: str | None = None, groups: Groups = 0) -> None:
        super().__init__(extractor, "sfid", "sfd", reference, ("mu_s", "sigma_s"), groups)

    def features(self, observation: Observation, side: Side) -> Tensor:
        """Features with shape (B, d) of the real or the made images (B, C, H, W), channels last.

        Raises:
            UserError: if they have no places.
        """
        feature = features_of(self.extractor, observation, side, self.layer)
        if self.layer is not None:
            return feature
        if feature.ndim != 4:
            raise UserError(f"sfid: {self.name} has features {tuple(feature.shape)}, no places: expected (B, C, h, w)")
        return feature[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
