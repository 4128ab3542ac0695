"""LPIPS of whole images, mean over images."""

from torch import Tensor

from smalti.extractors import Extractor
from smalti.extractors import lpips as features
from smalti.extractors._images import Channels, chosen, seen
from smalti.losses._range import SIGNED, check_images, clamped
from smalti.losses.lpips import lpips
from smalti.metrics import Observation
from smalti.metrics._per_image import PerImageMetric
from smalti.registry import arguments_of


class LPIPS(PerImageMetric):
    """Mean over images of the distance in the features of a frozen network (Zhang et al., arXiv:1801.03924).

    Images with shape (B, 3, H, W), clamped to [-1, 1], at least 16 x 16 pixels. In the features of VGG16 it is called
    ``lpips``, of AlexNet (``extractor: {type: lpips, network: alex}``) ``lpips_alex``, and with random weights
    ``lpips_random``: that is no perceptual distance.

    Args:
        extractor: the network; None for :class:`smalti.extractors.lpips.LPIPS` with pretrained weights.
        channels: which channels of the images it sees, counted from 0; None: all of them, one or three.
    """

    higher_is_better = False

    def __init__(self, extractor: Extractor | None = None, channels: Channels | None = None) -> None:
        self.extractor = features.LPIPS() if extractor is None else extractor
        self.channels = chosen(channels)
        self.smallest_size = getattr(self.extractor, "smallest_size", 1)
        of_alex = "_alex" if getattr(self.extractor, "network", "vgg") == "alex" else ""
        is_random = arguments_of(self.extractor).get("weights") == "random"
        self.names = (f"lpips{'_random' if is_random else of_alex}",)

    def per_image(self, observation: Observation) -> dict[str, Tensor]:
        """``lpips`` (``lpips_alex``, ``lpips_random``) -> distance of each image, with shape (B,)."""
        extractor = self.extractor.to(observation.target.device)
        check_images(observation.reconstruction, observation.target, SIGNED)
        images = [
            seen(clamped(of.float(), SIGNED), self.channels) for of in (observation.reconstruction, observation.target)
        ]
        return {self.names[0]: lpips(*images, extractor=extractor, reduction="none").flatten()}
