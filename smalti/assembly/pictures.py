"""Sample pictures of a model of tokens: it draws tokens, the tokenizer that made its training data decodes them."""

from typing import Any

import torch
from torch import Tensor, nn

from smalti.interop.decoding import decode, tokenizer_for
from smalti.models._decoder_of import DecodedBy
from smalti.models.autoencoder import Autoencoder
from smalti.outputs import Batch, batch_size
from smalti.registry import UserError


class TokenPictures:
    """Draws images with the classes of a batch, or its captions; the same random numbers at every step.

    Args:
        tokenizer: that decodes.
    """

    def __init__(self, tokenizer: Autoencoder) -> None:
        self.tokenizer = tokenizer

    @classmethod
    def of(cls, model: nn.Module, source: Any) -> "TokenPictures":
        """Of a model that learns from ``source``.

        Raises:
            UserError: if the tokenizer of its tokens is not known, or not found.
        """
        facts = getattr(source, "tokenizer", None)
        none = "engine.sample_every: 0 trains without pictures"
        if facts is None:
            raise UserError(f"engine.sample_every: pictures need a tokenizer, and these data name none; {none}")
        try:
            return cls(tokenizer_for(model, DecodedBy.of(facts)))
        except UserError as error:
            said = str(error).removesuffix("; --tokenizer says where it is")
            raise UserError(f"engine.sample_every: {said}; {none}") from error

    def __call__(self, model: nn.Module, batch: Batch, count: int) -> tuple[None, Tensor]:
        """No images that were given, and at most ``count`` that are made, with shape (N, C, H, W).

        Args:
            model: predicts tokens; left in the mode it was in.
            batch: on its device.
            count: at most so many.
        """
        number = min(count, batch_size(batch))
        told: dict[str, Any] = {"classes": batch["label"][:number]} if getattr(model, "num_classes", 0) else {}
        if getattr(model, "text_length", 0):
            told = {"text": batch["text"][:number]}
            told |= {"text_mask": batch["text_mask"][:number]} if "text_mask" in batch else {}
        with torch.no_grad():
            indices = model.sample(seeds=range(number), **told)  # type: ignore[operator]
        return None, decode(self.tokenizer, indices).float().cpu()
