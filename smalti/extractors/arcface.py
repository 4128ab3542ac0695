"""ArcFace: embeddings of faces, close for one person and far for two."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smalti.extractors import Extractor
from smalti.extractors._download import PinnedFile, fetch
from smalti.extractors._frozen import freeze_filled
from smalti.extractors._images import Channels, as_rgb
from smalti.extractors._weights import label_of, paths_of, read_tensors
from smalti.nn.sizes import Layers
from smalti.nn.unit import unit

FILE = PinnedFile(
    name="recognition_arcface_ir_se50.pth",
    url="https://github.com/xinntao/facexlib/releases/download/v0.1.0/recognition_arcface_ir_se50.pth",
    sha256="a035c768259b98ab1ce0e646312f48b9e1e218197a0f80ac6765e88f8b6ddf28",
    megabytes=176,
)
WIDTHS = (64, 128, 256, 512)
BLOCKS = (3, 4, 14, 3)
SIDE = 112
# The face in an aligned portrait of 256 x 256 pixels, as FFHQ and CelebA-HQ align them.
ROWS, COLUMNS = slice(35, 223), slice(32, 220)


class ArcFace(Extractor):
    """The embedding of an improved residual network with squeeze and excitation, IR-SE50 (arXiv:1801.07698).

    (Deng et al.; the network: Hu et al., arXiv:1709.01507.) Images are aligned portraits in [-1, 1], which is what the
    network was trained on; the face is cut out. Embeddings have length 1. Built on the meta device it needs no weights,
    and reads and downloads nothing.

    Args:
        weights: ``pretrained`` (downloaded once), ``random`` (always the same), or the path of a file with the names of
            InsightFace_Pytorch (``model_ir_se50.pth``); several paths are read together.
        widths: channels of the four stages, the last of them also of the embedding; other than the standard ones only
            without ``pretrained``.
        blocks: number of residual blocks of the four stages; likewise.
        channels: which channels of the images it sees, and in which order, counted from 0; None: all, one or three.

    Example:
        >>> network = ArcFace(weights="random", widths=(4, 4, 8, 8), blocks=(1, 1, 1, 1))
        >>> [tuple(feature.shape) for feature in network(torch.zeros(2, 3, 256, 256))]
        [(2, 8)]
    """

    def __init__(
        self,
        *,
        weights: str | Sequence[str] = "pretrained",
        widths: Sequence[int] = WIDTHS,
        blocks: Sequence[Layers] = BLOCKS,
        channels: Channels | None = None,
    ) -> None:
        super().__init__(channels)
        paths = paths_of(weights)
        for name, values, standard in (("widths", widths, WIDTHS), ("blocks", blocks, BLOCKS)):
            if len(values) != len(standard) or min(values) < 1:
                raise ValueError(f"{name}={list(values)}: expected {len(standard)} numbers >= 1")
            if weights == "pretrained" and tuple(values) != standard:
                raise ValueError(f"{name}={list(values)}: expected {list(standard)} with weights='pretrained'")
        self.name = f"arcface{label_of(weights)}"
        with torch.random.fork_rng(devices=[]):  # building draws numbers that are overwritten below
            self._build(widths, blocks)
        freeze_filled(self, weights, lambda: _read(paths), self.name)
        self.train(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """One unit vector (B, widths[-1]) for each portrait, with shape (B, 3, H, W) or (B, 1, H, W) in [-1, 1]."""
        x = self.body(self.input_layer(face_of(as_rgb(images))))
        return (unit(self.output_layer(x)),)

    def _build(self, widths: Sequence[int], blocks: Sequence[int]) -> None:
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.PReLU(widths[0])
        )
        self.body = nn.Sequential()
        in_channels = widths[0]
        for width, count in zip(widths, blocks, strict=True):
            for number in range(count):
                self.body.append(Residual(in_channels, width, stride=2 if number == 0 else 1))
                in_channels = width
        side = SIDE // 2 ** len(blocks)
        # Dropout, which does nothing in evaluation, is third in the file: the linear layer must be the fourth.
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Identity(),
            nn.Flatten(),
            nn.Linear(in_channels * side**2, in_channels),
            nn.BatchNorm1d(in_channels),
        )


class Residual(nn.Module):
    """A residual block with squeeze and excitation: x + g(f(x)) f(x).

    Args:
        in_channels: width of what it takes.
        out_channels: width of what it gives.
        stride: by how much it shrinks the image.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if in_channels != out_channels:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.PReLU(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            SqueezeExcitation(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, h, w) to (B, out_channels, h / stride, w / stride)."""
        residual: Tensor = self.res_layer(x)
        shortcut: Tensor = self.shortcut_layer(x)
        return residual + shortcut


class SqueezeExcitation(nn.Module):
    """Each channel times a number in (0, 1) that depends on the means of all (Hu et al., arXiv:1709.01507).

    Args:
        channels: width of what it takes and gives.
        reduction: how much narrower the layer between is.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, max(1, channels // reduction), 1, bias=False)
        self.fc2 = nn.Conv2d(max(1, channels // reduction), channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Scales (B, channels, h, w)."""
        gates: Tensor = self.fc2(F.relu(self.fc1(x.mean(dim=(2, 3), keepdim=True))))
        return x * gates.sigmoid()


def face_of(images: Tensor) -> Tensor:
    """The face, (B, C, 112, 112), of aligned portraits with shape (B, C, H, W): rows 35-223, columns 32-220 of 256.

    The original looks at the height alone, and cuts a portrait of 256 x 300 pixels off its middle.
    """
    if images.shape[2:] != (256, 256):
        images = F.adaptive_avg_pool2d(images, 256)
    return F.adaptive_avg_pool2d(images[:, :, ROWS, COLUMNS], SIDE)


def _read(paths: Sequence[Path]) -> dict[str, Tensor]:
    """The tensors of the files, or the pretrained ones, without the counters of normalisations."""
    tensors = read_tensors(paths or [fetch(FILE, "weights")])
    return {key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
