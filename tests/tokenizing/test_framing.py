"""Views: which, in which order, pixel for pixel."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from smalti.data.transforms import Transform
from smalti.registry import UserError
from smalti.tokenizing.framing import Framing


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def views(image: Image.Image, **options: Any) -> torch.Tensor:
    return Framing(**options)({"image": image}, random.Random(0))["image"]


def test_a_whole_image_and_its_mirror_image() -> None:
    image = noise(9, 6)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert torch.equal(views(image), pixels[None])
    assert torch.equal(views(image, views="flip"), torch.stack([pixels, pixels.flip(2)]))
    assert Framing(views="flip").names == ("whole", "flip")


def test_ten_crops_of_the_published_ratios() -> None:
    image = noise(90, 70)
    found = views(image, size=32, views="ten-crop", crop_ratios=(1.1, 1.05))
    assert found.shape == (20, 3, 32, 32)
    for number, side in enumerate((35, 33)):  # int(32 * 1.1), int(32 * 1.05)
        whole = Transform(size=side, crop="adm_center")({"image": image}, random.Random(0))["image"]
        spare = side - 32
        middle = {3: 2, 1: 0}[spare]  # 1.5 and 0.5, to even
        corners = [(0, 0), (0, spare), (spare, 0), (spare, spare), (middle, middle)]
        for mirrored in (0, 1):
            shown = whole.flip(2) if mirrored else whole
            for place, (top, left) in enumerate(corners):
                crop = shown[:, top : top + 32, left : left + 32]
                assert torch.equal(found[number * 10 + mirrored * 5 + place], crop)


def test_every_view_has_a_name_of_its_own() -> None:
    names = Framing(size=32, views="ten-crop", crop_ratios=(1.1, 1.05)).names
    assert len(set(names)) == 20
    assert (names[0], names[5], names[-1]) == ("1.1:top-left", "1.1:top-left:flip", "1.05:middle:flip")
    assert Framing(size=32, views="ten-crop").names == names[:10]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": "ten-crop"}, "ten crops need a size"),
        ({"views": "five"}, "views='five': expected none, flip or ten-crop"),
        ({"size": 8, "crop_ratios": (1.1,)}, "views='none' has none"),
        ({"size": 8, "views": "ten-crop", "crop_ratios": (0.9,)}, "crop ratio 0.9: expected 1 to 8"),
        ({"size": 8, "views": "ten-crop", "crop_ratios": (float("nan"),)}, "crop ratio nan"),
        ({"size": 8, "views": "ten-crop", "crop_ratios": (1.1, 1.1)}, "expected each once"),
    ],
)
def test_views_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Framing(**options)
