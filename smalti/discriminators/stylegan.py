"""The second discriminator of FQGAN and LlamaGen, called StyleGAN there: residual blocks, a blur before each stride."""

import torch
from torch import Tensor, nn

from smalti.discriminators import Augmentation, Discriminator
from smalti.discriminators._input import check_images
from smalti.nn.resampling import Blur
from smalti.nn.sizes import Positive, power_of_two
from smalti.outputs import DiscriminatorOutput


class StyleGANBlock(nn.Module):
    """Half the size: (B, in, H, H) -> (B, out, H / 2, H / 2).

    Args:
        in_channels: of its input.
        out_channels: of its output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv_res = nn.Conv2d(in_channels, out_channels, 1, stride=2)
        self.net = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            nn.LeakyReLU(0.2),
        )
        blur = Blur([1.0, 2.0, 1.0], padding=(1, 1), border="reflect")
        self.downsample = nn.Sequential(blur, nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Maps with shape (B, out, H / 2, H / 2), of ``x`` with shape (B, in, H, H)."""
        y: Tensor = (self.downsample(self.net(x)) + self.conv_res(x)) * 0.5**0.5
        return y


class StyleGAN(Discriminator):
    """FQGAN's ``stylegan``, images (B, C, H, H) -> logits (B, 1) (arXiv:2411.16681; cf. arXiv:1912.04958).

    Plain convolutions with LeakyReLU 0.2 and torch's initialisation: no equalised learning rate, no minibatch standard
    deviation. The names of its weights are the original's.

    Args:
        image_size: H, a power of two between 8 and 1024.
        in_channels: image channels.
        channels: width of maps up to 32 pixels; it halves with each doubling beyond.
        augment: what is done to images before they are judged; in training mode only.

    Example:
        >>> StyleGAN(image_size=16, channels=4)(torch.zeros(2, 3, 16, 16)).logits.shape
        torch.Size([2, 1])
    """

    def __init__(
        self,
        *,
        image_size: Positive = 32,
        in_channels: Positive = 3,
        channels: Positive = 512,
        augment: Augmentation | None = None,
    ) -> None:
        super().__init__(augment)
        halvings = power_of_two(image_size, 8) - 2
        self.image_size = (image_size, image_size)
        self.smallest_size = image_size
        self.in_channels = in_channels
        widths = [max(1, min(channels, channels * 32 // (image_size >> i))) for i in range(halvings + 1)]
        self.blocks = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], 3, padding=1),
            nn.LeakyReLU(0.2),
            *(StyleGANBlock(widths[i], widths[i + 1]) for i in range(halvings)),
        )
        self.final_conv = nn.Sequential(nn.Conv2d(widths[-1], widths[-1], 3, padding=1), nn.LeakyReLU(0.2))
        self.final_linear = nn.Sequential(
            nn.Linear(16 * widths[-1], widths[-1]), nn.LeakyReLU(0.2), nn.Linear(widths[-1], 1)
        )

    def forward(self, images: Tensor, condition: Tensor | None = None) -> DiscriminatorOutput:
        """Judges ``images`` with shape (B, in_channels, H, H) in [-1, 1]; it takes no condition.

        Raises:
            ValueError: for images of another size, and for a condition.
        """
        check_images(images, self.in_channels, exactly=self.image_size)
        if condition is not None:
            raise ValueError("a condition was given: this discriminator takes none")
        x, _ = self.augmented(images, None)
        features: list[Tensor] = []
        for stage in self.blocks:
            x = stage(x)
            features.append(x)
        x = self.final_conv(x)
        return DiscriminatorOutput(logits=self.final_linear(torch.flatten(x, 1)), features=(*features[1:], x))
