import importlib.util
from typing import Any

import pytest

from smalti.data.photos import Photos
from smalti.registry import UserError


def test_every_photo_is_a_colour_photo() -> None:
    photos = Photos()
    assert len(photos) == len(photos.names) == 9
    for index in range(9):
        image = photos[index]["image"]
        assert image.mode == "RGB"
        assert min(image.size) >= 300


def test_a_photo_is_held_out() -> None:
    held_out, rest = Photos(include=["chelsea"]), Photos(exclude=["chelsea"])
    assert held_out.names == ("chelsea",)
    assert held_out[0]["image"].size == (451, 300)
    assert set(rest.names) | {"chelsea"} == set(Photos().names)
    assert "chelsea" not in rest.names


def test_included_photos_keep_the_order_they_are_asked_in() -> None:
    assert Photos(include=["rocket", "china"]).names == ("rocket", "china")


def test_a_photo_is_decoded_once() -> None:
    photos = Photos(include=["coffee"])
    assert photos[0]["image"] is photos[0]["image"]


def test_unknown_photo_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"exclude='chelsae': no photo of that name; did you mean 'chelsea'\?"):
        Photos(exclude=["chelsae"])


def test_nothing_left_is_refused() -> None:
    with pytest.raises(UserError, match="nothing is left"):
        Photos(include=["coffee"], exclude=["coffee"])


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str) -> Any:
        return None if name == "skimage" else original(name)

    original = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    assert Photos(include=["china", "flower"]).names == ("china", "flower")
    with pytest.raises(UserError, match=r"'astronaut' comes with scikit-image: pip install 'smalti\[demo\]'"):
        Photos()
