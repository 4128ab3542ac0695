"""CLIP: images and texts in one space, where a picture lies close to what is said about it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from smalti.extractors import TextImageExtractor
from smalti.extractors._frozen import freeze, named_weights
from smalti.extractors._images import Channels, area_resize, as_rgb
from smalti.extractors._weights import fill, random_tensors
from smalti.nn.unit import unit
from smalti.registry import UserError

if TYPE_CHECKING:
    from transformers import CLIPModel

REPO = "openai/clip-vit-base-patch32"
REVISION = "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268"
# OpenAI's mean and deviation of its training images, moved from [0, 1] to [-1, 1].
SHIFT = tuple(2.0 * mean - 1.0 for mean in (0.48145466, 0.4578275, 0.40821073))
SCALE = tuple(2.0 * deviation for deviation in (0.26862954, 0.26130258, 0.27577711))
# The stand-in reads bytes: 256 of them, a start and an end.
START, END = 256, 257


class CLIP(TextImageExtractor):
    """The embeddings of both CLIP networks, each of length 1 (Radford et al., arXiv:2103.00020).

    Images are in [-1, 1]; they are brought to the network's size by averaging over areas (or repetition) and normalised
    as the network expects. Built on the meta device it needs no weights, and downloads nothing: of a repository it then
    has the shapes of ViT-B/32. Needs the extra ``hf``.

    Args:
        weights: ``pretrained`` (OpenAI's ViT-B/32 at a fixed revision), ``random`` (a tiny network that reads bytes,
            always the same), the folder of a CLIP model that transformers has saved, or the name of a repository.
        revision: branch, tag or commit of the repository; for ``pretrained`` it is fixed.
        channels: which channels of the images it sees, and in which order, counted from 0; None: all, one or three.

    Example:
        >>> network = CLIP(weights="random")
        >>> [tuple(feature.shape) for feature in network(torch.zeros(2, 3, 40, 40))]
        [(2, 8)]
        >>> tuple(network.embed_text(["a cat", "a dog", "a cup"]).shape)
        (3, 8)
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self, *, weights: str = "pretrained", revision: str | None = None, channels: Channels | None = None
    ) -> None:
        super().__init__(channels)
        if revision is not None and (weights in {"pretrained", "random"} or Path(weights).expanduser().is_dir()):
            raise ValueError(f"revision={revision!r}: expected only with the name of a repository as weights")
        pretrained = weights == "pretrained"
        self.source = REPO if pretrained else weights
        self.revision = REVISION if pretrained else revision
        self.name = "clip" if pretrained else "clip (random weights)" if weights == "random" else f"clip ({weights})"
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)
        self.network = _network(self.source, self.revision, meta=self.shift.is_meta)
        freeze(self.network)
        if weights == "random" and not self.shift.is_meta:
            expected = named_weights(self.network)
            fill(expected, random_tensors(expected), self.name)
        self._tokenizer: Any = None
        self.train(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """One unit vector (B, D) for each image, with shape (B, 3, H, W) or (B, 1, H, W) in [-1, 1]."""
        side = self.network.config.vision_config.image_size
        x = (area_resize(as_rgb(images), side, side) - self.shift) / self.scale
        pooled = self.network.vision_model(pixel_values=x).pooler_output
        return (unit(self.network.visual_projection(pooled)),)

    @torch.no_grad()
    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors with shape (M, D) for M texts, without autograd; what is too long is cut off.

        Raises:
            ValueError: for one text that is not in a sequence; its letters would be taken as texts.
        """
        if isinstance(texts, str):
            raise ValueError(f"texts={texts!r}: expected a sequence of texts")
        tokens = {name: values.to(self.shift.device) for name, values in self._tokens(list(texts)).items()}
        with self.precision(self.shift.device):
            found = self.network.text_projection(self.network.text_model(**tokens).pooler_output)
        return unit(found)

    def _tokens(self, texts: list[str]) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask``, both with shape (M, L)."""
        longest: int = self.network.config.text_config.max_position_embeddings
        if self.source == "random":
            rows = [[START, *text.encode()[: longest - 2], END] for text in texts]
            length = max(map(len, rows))
            ids = torch.tensor([row + [END] * (length - len(row)) for row in rows])
            mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
            return {"input_ids": ids, "attention_mask": mask}
        if self._tokenizer is None:
            from transformers import CLIPTokenizer

            with _explained(self.source):
                self._tokenizer = CLIPTokenizer.from_pretrained(self.source, revision=self.revision or "main")
        found = self._tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        return {name: found[name] for name in ("input_ids", "attention_mask")}


@contextmanager
def _explained(source: str) -> Iterator[None]:
    """Turns what transformers raises for a source that cannot be had into one clear error."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot load CLIP from {source!r}: {str(error).rstrip('.')}. Give the folder of a model that transformers "
            f"has saved as option 'weights'"
        ) from error


def _network(source: str, revision: str | None, *, meta: bool) -> "CLIPModel":
    """The network in float32; on the meta device by its shapes alone."""
    try:
        from transformers import CLIPConfig, CLIPModel
    except ImportError as error:
        raise UserError("CLIP needs transformers: pip install 'smalti[hf]'") from error
    path = Path(source).expanduser()
    if source == "random":
        with torch.random.fork_rng(devices=[]):  # building draws numbers that are overwritten later
            return CLIPModel(_tiny())
    with _explained(source):
        if meta:
            return CLIPModel(CLIPConfig.from_pretrained(path) if path.is_dir() else CLIPConfig())
        options = {} if path.is_dir() or revision is None else {"revision": revision}
        network, report = CLIPModel.from_pretrained(
            path if path.is_dir() else source, output_loading_info=True, **options
        )
    absent = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if absent:  # transformers would leave them random
        raise UserError(f"weights from {source!r} do not fit CLIP: missing or of another shape: {', '.join(absent)}")
    return network.float()


def _tiny() -> Any:
    """The shapes of the stand-in."""
    from transformers import CLIPConfig

    common = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"vocab_size": END + 1, "max_position_embeddings": 32, "bos_token_id": START, "eos_token_id": END}
    return CLIPConfig(
        text_config={**common, **text, "pad_token_id": END, "projection_dim": 8},
        vision_config={**common, "image_size": 32, "patch_size": 16, "projection_dim": 8},
        projection_dim=8,
    )
