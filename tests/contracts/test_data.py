"""What every registered data source keeps, found in its folder, without a table: items, columns, names, words."""

import inspect
import pickle
import random
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from smalti.config import build, config_of
from smalti.config.schema import option_parameters
from smalti.data import ImageSource
from smalti.data.loader import BatchLoader, evaluation_batches
from smalti.data.tokens import Tokens
from smalti.data.transforms import Transform
from smalti.registry import names, short_name
from tests.contracts.examples import registered
from tests.tokens.stores import small

SOURCES = [pytest.param(cls, id=short_name(cls)) for cls in registered(ImageSource)]
every_source = pytest.mark.parametrize("cls", SOURCES)
CROP = Transform(size=16, crop="adm_random", flip=True)


def shows(source: ImageSource) -> bool:
    """Whether its items are images; all others are arrays of their own size."""
    return "image" in source.columns


def contents(item: Any) -> Any:
    """The bytes of the first column."""
    return next(iter(item.values())).tobytes()


@pytest.fixture
def make(tmp_path: Path) -> Any:
    """Builds a source; a demanded ``path`` is a folder of three small images, or a token store of seven.

    The images are in an archive there, too.
    """

    def build_source(cls: type[ImageSource]) -> ImageSource:
        if cls is Tokens:
            return cls(str(small(tmp_path / f"store-{len(list(tmp_path.iterdir()))}", views=3).folder))
        for number in range(3):
            shape = (20 + number, 18, 3)
            pixels = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        with tarfile.open(tmp_path / "three.tar", "w") as archive:
            for number in range(3):
                archive.add(tmp_path / f"{number}.png", f"{number}.png")
        demanded = [
            name for name, option in option_parameters(cls).items() if option.default is inspect.Parameter.empty
        ]
        assert set(demanded) <= {"path"}, "a source needs an example here"
        return cls(**dict.fromkeys(demanded, str(tmp_path)))

    return build_source


@every_source
def test_items_have_the_declared_columns_and_a_name(cls, make):
    source = make(cls)
    assert len(source) == len(source.names) == len(set(source.names)) > 0
    for index in range(len(source)):
        item = source[index]
        assert set(item) == set(source.columns)
        if shows(source):
            assert isinstance(item["image"], Image.Image)
            assert len(item["image"].getbands()) == source.image_channels
        else:
            assert source.image_channels == 0
            assert isinstance(next(iter(item.values())), np.ndarray)


@every_source
def test_reading_an_item_is_repeatable(cls, make):
    source, again = make(cls), make(cls)
    state = (random.getstate(), str(np.random.get_state()))
    for index in range(len(source)):
        assert contents(source[index]) == contents(source[index]) == contents(again[index])
        drawn = [contents(one.draw(index, random.Random(index))) for one in (source, source, again)]
        assert len(set(drawn)) == 1
    assert state == (random.getstate(), str(np.random.get_state()))


@every_source
def test_says_what_it_consists_of_and_opens_nothing(cls, make, monkeypatch):
    source, again = make(cls), make(cls)
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("an image was opened"))
    groups = {name: list(entries) for name, entries in source.fingerprint().items()}
    assert groups == {name: list(entries) for name, entries in again.fingerprint().items()}
    if shows(source):  # others consist of files that hold many items
        assert [name for name, _ in next(iter(groups.values()))] == list(source.names)
    assert all(groups.values())
    assert all(mark not in {"", "gone", 0} for entries in groups.values() for _, mark in entries)
    assert set(source.locations) <= set(option_parameters(cls))


@every_source
def test_travels_to_a_worker(cls, make):
    source = make(cls)
    copy = pickle.loads(pickle.dumps(source))
    assert copy.names == source.names
    assert contents(copy[0]) == contents(source[0])


@every_source
def test_gives_batches(cls, make):
    source = make(cls)
    transform = CROP if shows(source) else Transform()
    batch = next(BatchLoader(source, transform, batch_size=2, seed=0).batches())
    if shows(source):
        assert batch["image"].shape == (2, source.image_channels, 16, 16)
    assert set(batch) == {*source.columns, "index", "position"}
    seen = [index for found in evaluation_batches(source, transform, 2) for index in found["index"].tolist()]
    assert seen == list(range(len(source)))


@every_source
def test_build_of_config_rebuilds_it(cls, make):
    source = make(cls)
    rebuilt = build(config_of(source), ImageSource)
    assert type(rebuilt) is cls
    assert config_of(rebuilt) == config_of(source)
    assert rebuilt.names == source.names


@every_source
def test_options_have_types_and_words(cls):
    for name, option in option_parameters(cls).items():
        assert option.annotation is not inspect.Parameter.empty
        assert re.search(rf"^\s+{name}: ", cls.__doc__, re.MULTILINE), f"option {name} is not described"


def test_sources_of_this_issue_are_found():
    assert {"image_folder", "photos", "tokens", "webdataset"} <= set(names(ImageSource))
