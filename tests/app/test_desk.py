"""Tokens on a desk: what is done to them can be undone, and decodes to what the model says."""

import math
from pathlib import Path

import pytest
import torch
from PIL import Image

import smalti
from smalti.app import Maker, Slider
from smalti.app.desk import Desk, desk_of
from smalti.app.editing import planes_of
from smalti.app.makers import sliders_of
from smalti.app.pictures import difference, fitted, tile_of, token_map, told
from smalti.models.autoencoder import Autoencoder
from smalti.registry import UserError

ANY = 10**6


@pytest.fixture(scope="module")
def model() -> Autoencoder:
    """Two codebooks, untrained."""
    torch.manual_seed(0)
    return smalti.build("tiny-fqgan-dual-f16").eval()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    Image.effect_mandelbrot((70, 40), (-2, -1, 1, 1), 20).convert("RGB").save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.fixture
def desk(model: Autoencoder, file: Path) -> Desk:
    return desk_of(file, model, 512, ANY)


def decoded(desk: Desk) -> Image.Image:
    return desk.view(planes_of(desk.model)[0])[1]


def test_untouched_tokens_decode_to_the_reconstruction(desk: Desk, model: Autoencoder) -> None:
    assert desk.original.shape[-2:] == (32, 64)  # the middle that 16 divides
    with torch.inference_mode():
        made = model.decode_indices(desk.edits[0].indices)
    expected = ((made[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0)
    assert torch.equal(torch.frombuffer(bytearray(decoded(desk).tobytes()), dtype=torch.uint8), expected.flatten())


def test_swapping_twice_changes_nothing_and_once_exchanges_one_plane(desk: Desk) -> None:
    before = desk.edits[0].indices.clone()
    plane = planes_of(desk.model)[1]
    desk.places = [(0, 0), (1, 3)]
    desk.do("swap", plane)
    after = desk.edits[-1].indices
    assert after[0, 1, 0, 0] == before[0, 1, 1, 3]
    assert after[0, 1, 1, 3] == before[0, 1, 0, 0]
    assert torch.equal(after[0, 0], before[0, 0])
    assert torch.equal(desk.edits[0].indices, before)  # what came before is kept
    desk.do("swap", plane)
    assert torch.equal(desk.edits[-1].indices, before)


def test_setting_a_code_is_undone(desk: Desk) -> None:
    plane = planes_of(desk.model)[0]
    first = decoded(desk)
    desk.places = [(1, 2)]
    desk.do("code", plane, 7)
    desk.do("code", plane, 9)
    assert int(desk.edits[-1].indices[0, 0, 1, 2]) == 9
    desk.do("undo", plane)
    assert int(desk.edits[-1].indices[0, 0, 1, 2]) == 7
    desk.do("reset", plane)
    desk.do("undo", plane)
    assert decoded(desk) == first


def test_the_mean_of_all_codebooks_decodes_to_the_mean_latent(desk: Desk, model: Autoencoder) -> None:
    for plane in planes_of(model):
        desk.do("mean", plane)
    latent = model.bottleneck.mean_latent()[None, :, None, None].expand(-1, -1, 2, 4)
    with torch.inference_mode():
        made = model.decode(latent.contiguous())
    expected = ((made[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0)
    assert torch.equal(torch.frombuffer(bytearray(decoded(desk).tobytes()), dtype=torch.uint8), expected.flatten())


def test_a_mask_lies_between_two_places_in_any_order(desk: Desk) -> None:
    plane = planes_of(desk.model)[0]
    desk.places = [(1, 2), (0, 1)]
    desk.do("mask", plane)
    assert desk.edits[-1].means[plane].tolist() == [[False, True, True, False]] * 2
    assert desk.edits[0].means == {}


def test_a_click_chooses_the_token_below_it(desk: Desk) -> None:
    tile = tile_of(2, 4)
    desk.choose(3 * tile + 1, tile)
    desk.choose(0, tile - 1)
    assert desk.places == [(1, 3), (0, 0)]
    squares, _, text = desk.view(planes_of(desk.model)[0])
    assert squares.size == (4 * tile, 2 * tile)
    assert squares.getpixel((3 * tile, tile)) == (0, 0, 0)
    assert squares.getpixel((0, 0)) == (255, 255, 255)
    assert "A: row 1, column 3" in text
    desk.choose(0, 0)
    assert desk.places == [(0, 0)]


@pytest.mark.parametrize(
    ("what", "places", "code", "message"),
    [
        ("swap", [(0, 0)], 0, "choose two tokens"),
        ("code", [], 0, "choose a token"),
        ("code", [(0, 0)], 10**6, "code 1000000: expected 0 to"),
        ("code", [(0, 0)], -1, "code -1: expected 0 to"),
        ("mask", [(0, 0), (9, 0)], 0, "row 9, column 0: expected rows to 1"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    desk: Desk, what: str, places: list[tuple[int, int]], code: int, message: str
) -> None:
    desk.places = places
    with pytest.raises(UserError, match=message):
        desk.do(what, planes_of(desk.model)[0], code)
    assert len(desk.edits) == 1


def test_bits_and_codes_are_counted(desk: Desk, model: Autoencoder) -> None:
    text = desk.view(planes_of(model)[0])[2]
    bits = 8 * sum(math.log2(size) for size in model.codebook_sizes.values())
    assert f"**{bits:,.0f} bits**, {bits / 2048:.3f} a pixel" in text
    assert "4 x 2 tokens in 2 codebooks" in text
    same = told(model, torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.02), None)
    assert same.startswith("**40.00 dB**")  # -20 log10(0.02 / 2)
    assert "tokens" not in same


def test_a_difference_is_black_where_there_is_none() -> None:
    original = torch.zeros(1, 3, 2, 2)
    assert difference(original, original).getextrema() == ((0, 0),) * 3
    made = original.clone()
    made[0, 0] = 0.25
    assert difference(original, made).getextrema()[0] == (128, 128)  # 4 x 0.25 of a range of 2


def test_pictures_are_made_smaller_and_what_is_none_is_named(file: Path, tmp_path: Path) -> None:
    assert fitted(file, 35, [4], ANY).size == (32, 20)
    assert fitted(file, 512, [4, 6], ANY).size == (60, 36)
    with pytest.raises(UserError, match="70 x 40 pixels: expected at least 64 x 64"):
        fitted(file, 512, [64], ANY)
    with pytest.raises(UserError, match=r"the picture: 70 x 40 pixels: .* allows"):
        fitted(file, 512, [4], 1000)
    (tmp_path / "b.png").write_text("no picture")
    with pytest.raises(UserError, match="the picture: "):
        fitted(tmp_path / "b.png", 512, [4], ANY)


def test_a_model_without_codes_has_no_desk(file: Path) -> None:
    with pytest.raises(UserError, match="continuous"):
        desk_of(file, smalti.build("tiny-vae-kl-f8").eval(), 512, ANY)


def test_a_map_has_a_colour_for_each_code_and_grey_for_the_mean() -> None:
    codes = torch.tensor([[1, 1], [2, 3]])
    squares = token_map(codes, means=torch.tensor([[False, False], [False, True]]))
    tile = tile_of(2, 2)
    corners = [squares.getpixel((x * tile, y * tile)) for y in (0, 1) for x in (0, 1)]
    assert corners[0] == corners[1] != corners[2]
    assert corners[3] == (128, 128, 128)


def test_a_maker_gets_its_own_values_and_classes() -> None:
    seen: list[object] = []

    def draw(*arguments: object) -> torch.Tensor:
        seen.append(arguments)
        return torch.zeros(int(str(arguments[1])), 1, 8, 8)

    slider = Slider(name="truncation", label="t", low=0, high=1, value=1, step=0.1)
    other = Slider(name="guidance", label="g", low=0, high=9, value=3, step=1)
    maker = Maker(draw=draw, num_classes=3, sliders=[slider])
    assert maker.sheet(5, 5, 2, {"truncation": 0.5, "guidance": 4.0}).size == (3 * 96 + 8, 2 * 96 + 4)
    maker.sheet(5, 1, 7, {})
    assert seen == [(5, 5, 2, {"truncation": 0.5}), (5, 1, None, {"truncation": 1.0})]
    second = Maker(draw=draw, sliders=[slider, other])
    assert [found.name for found in sliders_of([maker, second])] == ["truncation", "guidance"]
