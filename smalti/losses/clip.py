"""CLIP loss: a picture should show what a text says."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from torch import Tensor

from smalti.extractors import TextImageExtractor
from smalti.extractors._images import Channels, chosen, seen
from smalti.extractors.clip import CLIP as Network  # noqa: N811 (the loss has the name of its network)
from smalti.losses import Reduction
from smalti.losses._reduction import WEIGHTS, Weighting, at_least_float32, check_choice, reduce
from smalti.losses._weighted import WeightedLoss

Pairs = Literal["matched", "all"]


def clip(
    prediction: Tensor,
    text: Sequence[str],
    weight: Tensor | None = None,
    *,
    extractor: TextImageExtractor,
    pairs: Pairs = "matched",
    reduction: Reduction = "mean",
    weighting: Weighting = "weighted_mean",
    per_sample: bool = False,
) -> Tensor:
    """l = 1 - cos(f(prediction), g(text)), one per image and its text, or one per image and any text; in [0, 2].

    Args:
        prediction: with shape (B, 3, H, W) in [-1, 1]; grey (B, 1, H, W) is taken as three equal channels.
        text: one text for each image (``matched``), or any number of texts for all of them (``all``).
        weight: (B,) or (B, 1, 1, 1).
        extractor: the networks f and g.
        pairs: ``matched`` or ``all``.
        reduction: ``none`` gives shape (B, 1, 1, 1), for M texts and ``all`` (B, M, 1, 1); ``mean``, ``sum`` or
            ``batch_sum``.
        weighting: divide by the sum of weights or by the elements, see :func:`smalti.losses._reduction.reduce`.
        per_sample: average each sample first, then over samples.

    Raises:
        ValueError: for another number of texts than of images, an unknown option value, or a weight that does not fit.
    """
    check_choice("pairs", pairs, Pairs)
    if pairs == "matched" and len(text) != prediction.shape[0]:
        raise ValueError(f"{len(text)} texts for {prediction.shape[0]} images: expected as many, or pairs='all'")
    goals = at_least_float32(extractor.embed_text(text))
    cosines = at_least_float32(extractor(prediction)[-1])[:, None] * (goals[:, None] if pairs == "matched" else goals)
    values = (1.0 - cosines.sum(dim=2))[:, :, None, None]
    return reduce(values, weight, reduction=reduction, weighting=weighting, per_sample=per_sample)


class CLIP(WeightedLoss):
    """CLIP loss = 1 - cos(f(image), g(text)) of the embeddings of CLIP (Patashnik et al., arXiv:2103.17249).

    For images (B, 3, H, W) in [-1, 1] and their texts; the texts are seen without autograd. Needs the extra ``hf``.

    Args:
        extractor: the frozen networks; the default is :class:`smalti.extractors.clip.CLIP` with pretrained weights.
        channels: which channels of the images it sees, counted from 0; None: all of them, one or three.
        pairs: ``matched``: a text for each image; ``all``: every image is compared with every text.
        reduction: ``none`` (shape (B, 1, 1, 1) or (B, M, 1, 1)), ``mean``, ``sum`` or ``batch_sum``.
        weighting: divide by the sum of weights (``weighted_mean``) or by the elements (``mean_of_weighted``).
        per_sample: average each sample first, then over samples.

    Example:
        >>> import torch
        >>> loss = CLIP(extractor=Network(weights="random"), reduction="none", pairs="all")
        >>> tuple(loss(torch.zeros(2, 3, 40, 40), ["a cat", "a dog", "a cup"]).shape)
        (2, 3, 1, 1)
    """

    batch_statistics: ClassVar[Mapping[str, str]] = {**WEIGHTS, "text": "with `pairs: all` the texts of all images"}

    def __init__(
        self,
        *,
        extractor: TextImageExtractor | None = None,
        channels: Channels | None = None,
        pairs: Pairs = "matched",
        reduction: Reduction = "mean",
        weighting: Weighting = "weighted_mean",
        per_sample: bool = False,
    ) -> None:
        super().__init__(reduction=reduction, weighting=weighting, per_sample=per_sample)
        check_choice("pairs", pairs, Pairs)
        self.extractor = Network() if extractor is None else extractor
        self.channels = chosen(channels)
        self.pairs: Pairs = pairs

    def statistics(self) -> Mapping[str, str]:
        """The weights, and the texts of other images if they count."""
        of_all = {name: text for name, text in self.batch_statistics.items() if name == "text" and self.pairs == "all"}
        return {**super().statistics(), **of_all}

    def forward(self, prediction: Tensor, text: Sequence[str], weight: Tensor | None = None) -> Tensor:
        """How far images (B, 3, H, W) are from their texts; ``weight`` is (B,) or (B, 1, 1, 1)."""
        values = clip(
            seen(prediction, self.channels), text, extractor=self.extractor, pairs=self.pairs, reduction="none"
        )
        return self.reduced(values, weight)
