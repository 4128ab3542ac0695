from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from smalti.data.grid import grid, save_grid, side_by_side, to_pillow, to_uint8


def test_every_level_survives() -> None:
    levels = torch.arange(256)
    assert torch.equal(to_uint8(levels / 127.5 - 1), levels.to(torch.uint8))
    assert torch.equal(to_uint8((levels / 127.5 - 1).double()), levels.to(torch.uint8))


def test_target_stands_left_of_its_reconstruction() -> None:
    target, reconstruction = torch.zeros(2, 3, 4, 5), torch.full((2, 3, 4, 5), -1.0)
    pair = side_by_side(target, reconstruction, gap=2)
    assert pair.shape == (2, 3, 4, 12)
    assert torch.equal(pair[..., :5], target)
    assert torch.equal(pair[..., 5:7], torch.ones(2, 3, 4, 2))
    assert torch.equal(pair[..., 7:], reconstruction)
    with pytest.raises(ValueError, match="must be equal"):
        side_by_side(target, reconstruction[..., :4])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pillow_image_has_the_same_pixels(channels: int) -> None:
    image = torch.rand(channels, 4, 6) * 2 - 1
    array = np.array(to_pillow(image))
    assert torch.equal(torch.from_numpy(array.reshape(4, 6, channels)).permute(2, 0, 1), to_uint8(image))


def test_images_of_different_sizes_share_a_grid(tmp_path: Path) -> None:
    images = [torch.full((3, 4, 4), -1.0), torch.zeros(1, 6, 5), torch.full((3, 2, 3), -1.0)]
    save_grid(tmp_path / "new/folder/grid.png", images, columns=2, gap=3)
    pixels = np.asarray(Image.open(tmp_path / "new/folder/grid.png"))
    assert pixels.shape == (6 + 3 + 6, 5 + 3 + 5, 3)
    assert (pixels[:4, :4] == 0).all()
    assert (pixels[:6, 8:] == 128).all()
    assert (pixels[9:11, :3] == 0).all()
    assert (pixels[9:, 8:] == 255).all()


def test_few_images_make_a_short_row() -> None:
    assert grid(torch.zeros(2, 3, 4, 4), columns=8, gap=0).size == (8, 4)


def test_impossible_grids_are_refused() -> None:
    with pytest.raises(ValueError, match="0 images in 2 columns"):
        grid([], columns=2)
    with pytest.raises(ValueError, match="expected \\(C, H, W\\) with 1, 3 or 4 channels"):
        to_pillow(torch.zeros(2, 4, 4))
