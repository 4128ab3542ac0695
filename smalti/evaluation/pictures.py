"""Pictures of the worst images beside a result: each original and what was made of it, as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from smalti.data.loader import to_device
from smalti.evaluation._crops import Framing
from smalti.evaluation._pixels import under
from smalti.evaluation.passing import Question
from smalti.evaluation.results import Result
from smalti.metrics._quantized import quantized
from smalti.metrics.evaluation import evaluating

FOLDER = "pictures"
ORIGINAL, MADE = "original", "made"
JUDGED = "psnr"


def save_worst(question: Question, result: Result, folder: Path, count: int) -> list[Path]:
    """Writes ``pictures/<index>-original.png`` and ``-made.png`` of the ``count`` worst images by PSNR.

    The tokenizer sees each of them once more, alone.

    Args:
        question: what was measured.
        result: of it.
        folder: of the result.
        count: of images.
    """
    rows = result.worst(JUDGED, count)
    framing, written = Framing(question.protocol), []
    with evaluating(question.adapter, question.device):
        for row in rows:
            index = int(row["index"])
            pixels = framing({"image": question.source[index]["image"]}, Random(0))["image"][None]
            images = to_device({"image": pixels}, question.device)["image"]
            seen = under(question.adapter.see(images, [question.source.names[index]]), question.protocol.quantize)
            for name, image in ((ORIGINAL, seen.target), (MADE, seen.reconstruction)):
                path = folder / FOLDER / f"{index:06d}-{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture(image[0]).save(path)
                written.append(path)
    return written


def picture(image: Tensor) -> Image.Image:
    """An image (1, 3 or 4, H, W) in [-1, 1], clamped and rounded to 8 bits."""
    levels = ((quantized(image.detach().cpu().float(), "round") + 1) * 127.5).round().to(torch.uint8)
    array = levels[0].numpy() if len(levels) == 1 else levels.permute(1, 2, 0).numpy()
    return Image.fromarray(array)


def found_in(folder: Path, rows: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], Path, Path]]:
    """Those of some rows whose two pictures lie in the folder of a result: row, original, made."""
    found = []
    for row in rows:
        original, made = (folder / FOLDER / f"{int(row['index']):06d}-{name}.png" for name in (ORIGINAL, MADE))
        if original.is_file() and made.is_file():
            found.append((row, original, made))
    return found
