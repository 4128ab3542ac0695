"""Paths as users write them."""

from pathlib import Path

import pytest

from smalti.config.places import local, to_write, why_missing
from smalti.registry import UserError


def test_the_home_folder_is_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert local("~/runs/a") == to_write("~/runs/a") == tmp_path / "runs/a"
    assert local("runs/~a") == Path("runs/~a")
    Path("~").mkdir()
    assert local("~") == Path("~")  # what is there is what it says


@pytest.mark.parametrize("address", ["s3://bucket/run", "gs://bucket/run", "hf://datasets/a/b", "https://host/run"])
def test_an_address_is_nothing_to_write_to(address: str) -> None:
    for given in (address, Path(address)):
        with pytest.raises(UserError, match=r"an address .*; expected a path on this machine"):
            to_write(given)
    assert "an address" in why_missing(address)


def test_drives_and_times_are_no_addresses() -> None:
    for path in (r"C:\runs\a", "C:/runs/a", "runs/10:30", "10:30/a"):
        assert to_write(path) == Path(path)


def test_why_a_path_is_missing_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOTOS", "/data/photos")
    assert why_missing("${PHOTOS}/a").endswith("write the path itself, as /data/photos/a")
    assert why_missing("$NOWHERE_/a").endswith("write the path itself")
    assert "without a pattern" in why_missing("photos/*.png")
