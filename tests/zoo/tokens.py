"""Tokens with a fault, for the sick models of tokens."""

from typing import Any, Literal

import numpy as np

from smalti.data import ImageSource
from smalti.data.known_tokens import KnownTokens

Fault = Literal["none", "few", "scattered", "constant", "one_label", "noise"]


class FaultyTokens(ImageSource):
    """Known tokens of one codebook of 64, which does not say how many codes it has: as sources of a user's own.

    Args:
        fault: ``few``: of a tokenizer of 16 codes; ``scattered``: 4 of the 64 are in use; ``constant``: all images the
            same; ``one_label``; ``none``.
        seed: of the items.
        count: of them.
    """

    columns = ("indices", "label")
    image_channels = 0

    def __init__(self, *, fault: Fault = "none", seed: int = 0, count: int = 1024) -> None:
        sizes = {"few": 16, "scattered": 4}
        self.known = KnownTokens(codebooks={"codebook": sizes.get(fault, 64)}, seed=seed, count=count)
        self.fault, self.names, self.labels = fault, self.known.names, None

    def __len__(self) -> int:
        return len(self.known)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.known[0 if self.fault == "constant" else index]
        if self.fault == "scattered":
            item["indices"] = 21 * item["indices"]
        label = 3 if self.fault == "one_label" else index % 10
        return {"indices": np.asarray(item["indices"]), "label": label}
