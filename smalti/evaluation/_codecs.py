"""Codecs of Pillow as tokenizers: an honest baseline in bits per pixel."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from smalti.evaluation.adapters import Adapter
from smalti.metrics import Observation
from smalti.metrics._codec import eight_bits, read, written
from smalti.outputs import BottleneckOutput
from smalti.registry import UserError

LOSSY = {"jpeg": "JPEG", "webp": "WEBP"}
_WORDS = re.compile(r"(jpeg|webp)(?::q=([0-9]{1,3}))?$|png$")
USUAL_QUALITY = 75


class Codec(Adapter):
    """A file format: each image is written to memory and read back; its bits are those of the file.

    Args:
        words: ``jpeg:q=75``, ``webp:q=75`` (1 to 100), or ``png``.

    Raises:
        UserError: for another format or quality.
    """

    def __init__(self, words: str) -> None:
        super().__init__()
        found = _WORDS.match(words)
        if found is None:
            raise UserError(f"{words}: expected jpeg:q=1..100, webp:q=1..100 or png")
        self.format = LOSSY.get(found[1], "PNG")
        self.options: dict[str, int] = {}
        if found[1]:
            quality = int(found[2] or USUAL_QUALITY)
            if not 1 <= quality <= 100:
                raise UserError(f"{words}: q={quality}: expected 1 to 100")
            self.options = {"quality": quality}
        self.name = self.origin = f"{found[1]}:q={self.options['quality']}" if found[1] else "png"

    def see(self, images: Tensor, names: Sequence[str]) -> Observation:
        """What metrics see of images (B, 1 or 3, H, W) in [-1, 1], rounded to 8 bits before they are written."""
        files = [written(image, self.format, **self.options) for image in eight_bits(images)]
        made = torch.stack([read(file, images.shape[1]) for file in files])
        bits = [8 * len(file) for file in files]
        return Observation(
            target=images,
            reconstruction=(made.to(images.dtype) / 127.5 - 1).to(images.device),
            bottleneck=BottleneckOutput(latent=images[:, :0]),
            codebook_sizes={},
            bits=torch.tensor(bits, dtype=torch.float64, device=images.device),
        )

    def fingerprint(self) -> Mapping[str, Any]:
        """The version of what writes the files."""
        import PIL

        return {"pillow": PIL.__version__, **self.options}


def is_codec(words: str) -> bool:
    """Whether these words mean a codec rather than a path."""
    return words.partition(":")[0] in {*LOSSY, "png"}
