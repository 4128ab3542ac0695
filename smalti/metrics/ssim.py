"""SSIM of whole images, mean over images."""

from torch import Tensor

from smalti.losses._reduction import check_choice
from smalti.losses.ssim import WINDOW, Border, smallest_side, ssim
from smalti.metrics import Observation
from smalti.metrics._per_image import PerImageMetric


class SSIM(PerImageMetric):
    """Mean over images of the structural similarity (Wang et al., 2004, doi:10.1109/TIP.2003.819861).

    Images with shape (B, C, H, W), clamped to [-1, 1], mapped to [0, 1], data range 1; window 11, sigma 1.5, k1 0.01,
    k2 0.03.

    Args:
        border: ``reflect`` (as torchmetrics) or ``valid`` (as scikit-image).
    """

    higher_is_better = True
    names = ("ssim",)

    def __init__(self, border: Border = "reflect") -> None:
        check_choice("border", border, Border)
        self.border: Border = border
        self.smallest_size = smallest_side(WINDOW, border)

    def per_image(self, observation: Observation) -> dict[str, Tensor]:
        """``ssim`` -> similarity of each image, with shape (B,)."""
        return {"ssim": ssim(observation.reconstruction, observation.target, border=self.border)}
