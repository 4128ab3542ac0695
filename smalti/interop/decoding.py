"""From tokens to images: the tokenizer of a model of tokens, opened and checked, and what it decodes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smalti.interop.opening import open_model, our_source
from smalti.models._checkpoint import find_checkpoint
from smalti.models._decoder_of import DecodedBy
from smalti.models.autoencoder import Autoencoder
from smalti.registry import UserError


def tokenizer_for(
    model: Any, kept: DecodedBy | None, path: str | None = None, *, trust_code: bool = False, device: str = "cpu"
) -> Autoencoder:
    """The tokenizer that decodes what ``model`` draws, in evaluation mode.

    Args:
        model: predicts tokens.
        kept: what is known of its tokenizer; None: nothing.
        path: of the tokenizer; None: where ``kept`` says.
        trust_code: whether its configuration may name classes outside smalti.
        device: where to.

    Raises:
        UserError: if it is not found, is no tokenizer, or another one.
    """
    if path is None and kept is None:
        raise UserError("nothing is known of the tokenizer of this model: --tokenizer says where it is")
    places = [path] if path is not None else kept.candidates() if kept is not None else []
    hint = "" if path is not None else "; --tokenizer says where it is"
    try:
        tokenizer = open_model(places[0], trust_code=trust_code, map_location=device)
    except UserError as error:
        raise UserError(f"the tokenizer of this model: {error}{hint}") from error
    if not isinstance(tokenizer, Autoencoder):
        raise UserError(f"{places[0]}: a {type(tokenizer).__name__}, expected the tokenizer of this model{hint}")
    if kept is not None:
        kept.check(tokenizer, str(places[0]))
    _require_codebooks(model, tokenizer.codebook_sizes, str(places[0]))
    return tokenizer


def kept_with(path: str | Path) -> DecodedBy | None:
    """What the saved model or the run at ``path`` keeps of its tokenizer; None if nothing is there."""
    checkpoint = find_checkpoint(path)
    return DecodedBy.read(Path(our_source(path)) if checkpoint is None else checkpoint.run)


@torch.no_grad()
def decode(tokenizer: Autoencoder, indices: Tensor) -> Tensor:
    """Images (B, C, H, W) in [-1, 1], clamped, of tokens (B, G, h, w)."""
    return tokenizer.decode_indices(indices.to(next(tokenizer.parameters()).device)).clamp(-1.0, 1.0)


def _require_codebooks(model: Any, theirs: Mapping[str, int], path: str) -> None:
    ours = [int(size) for size in model.codebooks.values()]
    if ours != list(theirs.values()):
        raise UserError(f"{path}: codebooks of {list(theirs.values())} codes: the model predicts {ours}")
