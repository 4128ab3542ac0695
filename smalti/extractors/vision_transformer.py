"""Any vision transformer of the package transformers as a teacher: CLIP, DINOv2, ViT, SigLIP, ..."""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import Field
from torch import Tensor, nn

from smalti.extractors import Extractor
from smalti.extractors._images import Channels
from smalti.extractors._preprocessing import Normalization, Resize, prepare
from smalti.extractors._transformers import Frozen, Setting, on_meta_device, pretrained, random_model


class VisionTransformer(Extractor):
    """One vector of the last hidden state of a vision transformer (Dosovitskiy et al., arXiv:2010.11929).

    The last hidden state is what the package calls so: of CLIP it is taken in front of the final norm, of DINOv2 behind
    it, which are the features that FQGAN distils. Frozen, in evaluation mode for ever, in no state dict and no count of
    parameters. Built on the meta device it needs no weights, and reads and downloads nothing.

    Args:
        model: repository on the Hub or local folder; of CLIP's two towers the vision tower is taken.
        weights: ``pretrained`` ones of ``model``, or ``random`` ones of the architecture ``config``, always the same.
        config: with ``random`` only: ``model_type`` and its settings, as in a ``config.json``.
        revision: branch, tag or commit of the repository.
        feature: the ``class`` token, or the ``mean`` of the other tokens (of all, if the model has no class token).
        size: side of the square that images are resized to.
        resize: ``bicubic`` or ``bilinear`` with antialiasing, or ``nearest``, which picks pixels, as FQGAN did.
        normalization: mean and deviation of ``imagenet``, of ``clip``, or ``half`` (0.5 and 0.5).
        channels: which channels of the images it sees, and in which order, counted from 0; None: all, one or three.

    Raises:
        UserError: if the model cannot be had, or transformers is not installed.
    """

    def __init__(
        self,
        *,
        model: str | None = None,
        weights: Literal["pretrained", "random"] = "pretrained",
        config: Mapping[str, Setting] | None = None,
        revision: str | None = None,
        feature: Literal["class", "mean"] = "class",
        size: Annotated[int, Field(ge=1)] = 224,
        resize: Resize = "bicubic",
        normalization: Normalization = "imagenet",
        channels: Channels | None = None,
    ) -> None:
        super().__init__(channels)
        if weights == "random" and config is None:
            raise ValueError("weights='random': expected config, the architecture to build")
        if weights == "pretrained" and (model is None or config is not None):
            raise ValueError("weights='pretrained': expected model, a repository or folder, and no config")
        self.feature = feature
        self.size = size
        self.resize: Resize = resize
        self.normalization: Normalization = normalization
        network = None
        if not on_meta_device():
            network = random_model(config or {}) if weights == "random" else pretrained(str(model), revision, "model")
        self._frozen = Frozen(network)
        self.name = str(model) if weights == "pretrained" else f"{(config or {}).get('model_type')} (random weights)"

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """One feature with shape (B, W) of images with shape (B, 3, H, W) or (B, 1, H, W) in [-1, 1]."""
        tokens = self._frozen.tokens(prepare(images, self.size, self.resize, self.normalization))
        if self.feature == "class":
            return (tokens[:, 0],)
        # More tokens than a square of patches: the first ones are classes or registers.
        patches = int(tokens.shape[1] ** 0.5) ** 2
        return (tokens[:, tokens.shape[1] - patches :].mean(dim=1),)

    def networks(self) -> Iterator[nn.Module]:
        """All modules of the network, which is not registered."""
        if self._frozen.network is not None:
            yield from self._frozen.network.modules()

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """The network moves along, though no state dict holds it."""
        self._frozen.apply(function)
        super()._apply(function, recurse)  # type: ignore[no-untyped-call]
        return self
