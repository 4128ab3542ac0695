"""DINOv2: a vision transformer trained without labels, the teacher of what is in an image."""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from smalti.extractors import Extractor
from smalti.extractors._images import Channels
from smalti.extractors._preprocessing import Resize
from smalti.extractors._transformers import Setting
from smalti.extractors.vision_transformer import VisionTransformer

Variant = Literal["tiny", "small", "base", "large", "giant"]
WIDTHS: dict[str, int] = {"tiny": 32, "small": 384, "base": 768, "large": 1024, "giant": 1536}
LAYERS: dict[str, int] = {"tiny": 2, "small": 12, "base": 12, "large": 24, "giant": 40}


class DINOv2(Extractor):
    """The class token behind the final norm of DINOv2 (Oquab et al., arXiv:2304.07193).

    Frozen, in evaluation mode for ever, in no state dict and no parameter count. Built on the meta device it needs no
    weights, and reads and downloads nothing.

    Args:
        variant: ``small`` (384 channels), ``base`` (768), ``large`` (1024), ``giant`` (1536), or ``tiny`` (32), which
            exists with random weights only.
        weights: ``pretrained`` (from the Hub), ``random`` (always the same), or the path of a local copy.
        size: side of the square that images are resized to, a multiple of the patch size 14.
        resize: ``bicubic`` or ``bilinear`` with antialiasing, or ``nearest``, which picks pixels, as FQGAN did.
        channels: which channels of the images it sees, and in which order, counted from 0; None: all, one or three.

    Raises:
        UserError: if the weights cannot be had, or transformers is not installed.
    """

    def __init__(
        self,
        *,
        variant: Variant = "small",
        weights: str = "pretrained",
        size: Annotated[int, Field(ge=14, multiple_of=14)] = 224,
        resize: Resize = "bicubic",
        channels: Channels | None = None,
    ) -> None:
        super().__init__(channels)
        if variant not in WIDTHS:
            raise ValueError(f"variant={variant!r}: expected {', '.join(map(repr, WIDTHS))}")
        if variant == "tiny" and weights == "pretrained":
            raise ValueError("variant='tiny': expected weights='random' or a path, nobody trained such a model")
        if size % 14:
            raise ValueError(f"size={size}: expected a multiple of the patch size 14")
        self.name = f"dinov2-{variant}" + (" (random weights)" if weights == "random" else "")
        if weights == "random":
            self.transformer = VisionTransformer(
                weights="random", config=_architecture(variant), size=size, resize=resize
            )
        else:
            model = f"facebook/dinov2-{variant}" if weights == "pretrained" else weights
            self.transformer = VisionTransformer(model=model, size=size, resize=resize)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """One feature with shape (B, width) of images with shape (B, 3, H, W) or (B, 1, H, W) in [-1, 1]."""
        features: tuple[Tensor, ...] = self.transformer(images)
        return features


def _architecture(variant: str) -> dict[str, Setting]:
    width = WIDTHS[variant]
    heads = 2 if variant == "tiny" else width // 64
    layers = LAYERS[variant]
    kind: dict[str, Setting] = {"model_type": "dinov2", "image_size": 518, "patch_size": 14}
    return kind | {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "use_swiglu_ffn": variant == "giant",
    }
