import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from smalti.data.transforms import Crop, Transform
from smalti.registry import UserError

CROPS: tuple[Crop, ...] = ("resize", "center", "random", "adm_center", "adm_random")


def noise_image(width: int, height: int, mode: str = "RGB") -> Image.Image:
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    return Image.fromarray(np.random.default_rng(width * height).integers(0, 256, shape, dtype=np.uint8))


def coordinates(width: int, height: int) -> Image.Image:
    """Red is the column, green the row: a crop tells where it was taken."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([columns, rows, 0 * rows], axis=-1).astype(np.uint8))


@pytest.mark.parametrize("number", range(4))
def test_adm_crops_equal_the_original(golden: Callable[[str], dict[str, Tensor]], number: int) -> None:
    crops = golden("fqgan/crops.safetensors")
    image = {"image": Image.fromarray(crops[f"{number}.src"].numpy())}
    center = Transform(size=32, crop="adm_center")(image, random.Random(0))["image"]
    assert torch.equal(center.permute(1, 2, 0), crops[f"{number}.center32"])
    drawn = Transform(size=32, crop="adm_random")(image, random.Random(5))["image"]
    assert torch.equal(drawn.permute(1, 2, 0), crops[f"{number}.random32_seed5"])


@settings(deadline=None, max_examples=60)
@given(
    source=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    size=st.one_of(st.integers(1, 40), st.tuples(st.integers(1, 40), st.integers(1, 40))),
    crop=st.sampled_from(CROPS),
    seed=st.integers(0, 9),
)
def test_every_crop_has_the_size_it_was_asked_for(
    source: tuple[int, int], size: int | tuple[int, int], crop: Crop, seed: int
) -> None:
    transform = Transform(size=size, crop=crop, flip=True)
    image = transform({"image": noise_image(*source)}, random.Random(seed))["image"]
    assert image.dtype == torch.uint8
    assert tuple(image.shape) == (3, *transform.shape)


def test_random_patch_is_a_patch_and_reaches_every_corner() -> None:
    image, transform = coordinates(12, 9), Transform(size=(4, 6), crop="random")
    whole = Transform()({"image": image}, random.Random(0))["image"]
    corners = set()
    for seed in range(400):
        patch = transform({"image": image}, random.Random(seed))["image"]
        left, top = int(patch[0, 0, 0]), int(patch[1, 0, 0])
        assert torch.equal(patch, whole[:, top : top + 4, left : left + 6])
        corners.add((left, top))
    assert corners == {(left, top) for left in range(7) for top in range(6)}


def test_columns_share_one_draw() -> None:
    image = coordinates(40, 30)
    red = image.getchannel("R")
    for crop in ("center", "random"):
        transform = Transform(size=9, crop=crop, flip=True)
        for seed in range(20):
            out = transform({"image": image, "alpha": red, "mask": red}, random.Random(seed))
            assert torch.equal(out["image"][:1], out["alpha"])
            assert torch.equal(out["image"][:1], out["mask"])


def test_mask_keeps_its_values_where_colours_are_interpolated() -> None:
    mask = Image.fromarray(np.where(np.arange(60)[None] < 31, 0, 255).repeat(60, axis=0).astype(np.uint8))
    out = Transform(size=16, crop="adm_random")({"image": mask, "mask": mask}, random.Random(1))
    assert set(out["mask"].unique().tolist()) == {0, 255}
    assert len(out["image"].unique()) > 2


def test_flip_mirrors_half_of_the_time() -> None:
    image = {"image": coordinates(8, 8)}
    straight = Transform()(image, random.Random(0))["image"]
    flipped = 0
    for seed in range(200):
        out = Transform(flip=True)(image, random.Random(seed))["image"]
        mirrored = torch.equal(out, straight.flip(-1))
        assert mirrored or torch.equal(out, straight)
        flipped += mirrored
    assert 70 <= flipped <= 130


def test_whole_image_keeps_every_byte() -> None:
    image = noise_image(7, 5)
    out = Transform()({"image": image, "alpha": noise_image(7, 5, "L")}, random.Random(0))
    assert out["image"].permute(1, 2, 0).numpy().tobytes() == image.tobytes()
    assert out["alpha"].shape == (1, 5, 7)


def test_one_pixel_becomes_a_crop_of_one_colour() -> None:
    image = {"image": Image.new("RGB", (1, 1), (9, 80, 200))}
    for crop in CROPS:
        out = Transform(size=8, crop=crop)(image, random.Random(0))["image"]
        assert torch.equal(out, torch.tensor([9, 80, 200], dtype=torch.uint8).reshape(3, 1, 1).expand(3, 8, 8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": "random"}, r"size=None: expected a size for crop='random'"),
        ({"size": 8}, r"size=8: expected no size for crop='none'"),
        ({"size": (8, 0), "crop": "center"}, r"size=\(8, 0\): expected a positive number"),
        ({"size": 8, "crop": "adm_random", "min_crop_fraction": 1.2}, r"min_crop_fraction=1.2"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Transform(**options)  # type: ignore[arg-type]


def test_columns_of_different_sizes_are_refused() -> None:
    with pytest.raises(UserError, match=r"column 'mask' is 4 x 5 pixels, its image is 5 x 5"):
        Transform()({"image": noise_image(5, 5), "mask": noise_image(4, 5, "L")}, random.Random(0))


@pytest.mark.parametrize("crop", ["resize", "center", "random", "adm_center", "adm_random"])
@pytest.mark.parametrize("size", [(80, 60), (31, 90), (20, 24)])
def test_the_fast_path_shows_the_same_part_of_the_image(crop, size):
    ramp = np.add.outer(np.arange(size[1]), 1.3 * np.arange(size[0]))
    image = Image.fromarray((ramp * 250 / ramp.max()).astype(np.uint8)).convert("RGB")
    for seed in range(4):
        plain, fast = (
            Transform(size=(24, 28), crop=crop, flip=True, fast=fast)({"image": image}, random.Random(seed))["image"]
            for fast in (False, True)
        )
        assert fast.shape == plain.shape == (3, 24, 28)
        assert fast.dtype == torch.uint8
        pixel = 250 * 2.3 * max(size) / min(size) / sum(size)  # a shift by half a pixel of the source, and rounding
        assert (fast.int() - plain.int()).abs().max() <= 2 * pixel + 3


def test_the_fast_path_resizes_whole_images_as_pillow_does():
    image = Image.effect_mandelbrot((61, 47), (-2, -1, 1, 1), 30).convert("RGB")
    plain, fast = (
        Transform(size=(19, 24), crop="resize", fast=fast)({"image": image}, random.Random(0))["image"]
        for fast in (False, True)
    )
    assert (fast.int() - plain.int()).abs().max() <= 1


def test_masks_keep_their_values_on_the_fast_path():
    image = Image.new("RGB", (50, 40))
    mask = Image.fromarray((np.indices((40, 50)).sum(0) % 2 * 255).astype(np.uint8))
    found = Transform(size=16, crop="adm_random", fast=True)({"image": image, "mask": mask}, random.Random(0))
    assert set(found["mask"].unique().tolist()) <= {0, 255}
