"""Pinned files: checked, written whole or not at all, and a message that helps when they cannot be had."""

import hashlib

import pytest

from smalti.extractors import _download
from smalti.extractors._download import PinnedFile, cache_folder, fetch
from smalti.registry import UserError

CONTENT = b"weights" * 1000


@pytest.fixture
def pinned(tmp_path, monkeypatch):
    monkeypatch.setenv("SMALTI_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("SMALTI_OFFLINE", raising=False)
    source = tmp_path / "source.pth"
    source.write_bytes(CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    return source, PinnedFile(name="file.pth", url=source.as_uri(), sha256=digest, megabytes=1)


def test_downloads_once_into_the_cache_folder(pinned):
    source, file = pinned
    path = fetch(file, "weights")
    assert path == cache_folder() / "file.pth"
    assert path.read_bytes() == CONTENT
    source.unlink()
    assert fetch(file, "weights") == path
    assert [item.name for item in path.parent.iterdir()] == ["file.pth"]


def test_a_damaged_copy_is_replaced(pinned):
    _, file = pinned
    path = fetch(file, "weights")
    path.write_bytes(CONTENT[:-1])
    assert fetch(file, "weights").read_bytes() == CONTENT


def test_wrong_content_is_refused_and_leaves_nothing_behind(pinned):
    source, file = pinned
    source.write_bytes(b"something else")
    with pytest.raises(UserError, match="what arrived has SHA-256"):
        fetch(file, "weights")
    assert not list(cache_folder().iterdir())


def test_a_broken_download_keeps_the_damaged_copy_out_of_use(pinned, monkeypatch):
    _, file = pinned

    def broken(*_, **__):
        raise OSError("connection reset")

    monkeypatch.setattr(_download.shutil, "copyfileobj", broken)
    with pytest.raises(UserError, match="connection reset"):
        fetch(file, "weights")
    assert not list(cache_folder().iterdir())


def test_what_cannot_be_had_says_which_file_where_and_which_option(pinned):
    source, file = pinned
    source.unlink()
    with pytest.raises(UserError) as error:
        fetch(file, "weights")
    for piece in (file.url, str(cache_folder() / "file.pth"), "option 'weights'"):
        assert piece in str(error.value)


@pytest.mark.parametrize("name", ["SMALTI_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_asks_no_server(pinned, monkeypatch, name):
    _, file = pinned
    monkeypatch.setenv(name, "1")
    with pytest.raises(UserError, match="OFFLINE"):
        fetch(file, "weights")


def test_default_cache_folder_is_in_the_home(monkeypatch, tmp_path):
    monkeypatch.delenv("SMALTI_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "smalti"
