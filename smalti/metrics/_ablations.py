"""What a tokenizer with several codebooks makes of an image when one of them says nothing."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class SeparateCodebooks(Protocol):
    """A model that can decode some of its codebooks alone."""

    @property
    def codebook_terms(self) -> Mapping[str, Any]:
        """The codebooks, by name."""

    def decode_only(
        self, latent: Tensor, names: str | Sequence[str], others: Literal["zero", "mean"] = "zero"
    ) -> Tensor:
        """Images (B, C, H, W) of latents (B, C', h, w), the codebooks that are not named at zero or at their mean."""


def at_means(model: Any, latent: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Codebook -> how to make the images (B, C, H, W) of a latent (B, C', h, w) with that one at its mean code.

    Nothing of a model with fewer than two codebooks, or that cannot decode them apart. Nothing is computed here.
    """
    names = list(model.codebook_terms) if isinstance(model, SeparateCodebooks) else []
    if len(names) < 2:
        return {}

    def without(name: str) -> Callable[[], Tensor]:
        return lambda: model.decode_only(latent, [other for other in names if other != name], "mean")

    return {name: without(name) for name in names}
