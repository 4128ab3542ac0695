"""The convolutions of AlexNet, frozen: the smaller of the two networks that LPIPS is known with."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from smalti.extractors._vgg import FrozenConvolution, Trunk
from smalti.nn.memory_format import with_like_gradient

ALEX_WIDTHS = (64, 192, 384, 256, 256)
# Kernel, stride and padding of each convolution; a pooling of 3 x 3 with stride 2 stands before the second and third.
_CONVOLUTIONS = ((11, 4, 2), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1))
_INDICES = (0, 3, 6, 8, 10)  # that torchvision gives them
_POOLED = (3, 6)


class AlexTrunk(Trunk):
    """The five convolutions of AlexNet, each with its ReLU (Krizhevsky, arXiv:1404.5997).

    Args:
        widths: channels of each convolution.
    """

    title = "AlexNet"
    layers = ("relu1", "relu2", "relu3", "relu4", "relu5")
    smallest_size = 31  # what leaves a place to the second pooling

    def __init__(self, widths: Sequence[int] = ALEX_WIDTHS) -> None:
        super().__init__()
        if len(widths) != len(_CONVOLUTIONS) or min(widths, default=0) < 1:
            raise ValueError(f"widths={list(widths)}: expected {len(_CONVOLUTIONS)} numbers >= 1")
        for index, shape, before, width in zip(_INDICES, _CONVOLUTIONS, (3, *widths), widths, strict=False):
            self.features[str(index)] = FrozenConvolution(before, width, *shape)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Five features, each with shape (B, width, h, w), of images (B, 3, H, W) or (B, 1, H, W) in [-1, 1].

        Raises:
            ValueError: for other channels, or fewer pixels than the poolings need.
        """
        x = self.normalized(images)
        found = []
        for index, convolution in zip(_INDICES, self.features.values(), strict=True):
            x = F.max_pool2d(x, 3, 2) if index in _POOLED else x
            x = F.relu(convolution(x))
            found.append(with_like_gradient(x))
        return tuple(found)
