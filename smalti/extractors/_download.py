"""Pinned files: downloaded once into one cache folder, checked by their hash each time they are used."""

import hashlib
import logging
import os
import re
import shutil
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path

from smalti.registry import UserError

logger = logging.getLogger(__name__)
TIMEOUT_SECONDS = 30.0
_CLAIM = re.compile(r"-([0-9a-f]{8,64})(?:\.\w+)+$")


@dataclass(frozen=True, kw_only=True)
class PinnedFile:
    """One file on the net that never changes.

    Args:
        name: its name in the cache folder.
        url: where it is.
        sha256: what its SHA-256 begins with: all 64 digits, fewer where only those are published, "" where none are.
        megabytes: how large it is, for the message.
    """

    name: str
    url: str
    sha256: str
    megabytes: int


def cache_folder() -> Path:
    """Where downloads are kept: the environment variable ``SMALTI_CACHE``, else ``~/.cache/smalti``."""
    return Path(os.environ.get("SMALTI_CACHE") or "~/.cache/smalti").expanduser()


def fetch(file: PinnedFile, option: str) -> Path:
    """The path of ``file`` in the cache folder, downloaded if it is not there or is damaged.

    Args:
        file: what is wanted.
        option: the option that takes a local path instead, for the message.

    Raises:
        UserError: if it cannot be had, saying which file to fetch and where to put it.
    """
    path = cache_folder() / file.name
    if path.is_file() and sha256_of(path).startswith(file.sha256):
        return path
    if _offline():
        there = f"what lies there has SHA-256 {sha256_of(path)}, and " if path.is_file() else ""
        raise _unavailable(file, option, f"{there}SMALTI_OFFLINE or HF_HUB_OFFLINE is set")
    try:
        _download(file, path)
    except OSError as error:
        raise _unavailable(file, option, str(error)) from error
    return path


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_claimed_hash(path: Path) -> None:
    """Refuses a file whose name tells another SHA-256 than it has: ``name-6726825d.pth`` begins with 6726825d.

    Raises:
        UserError: saying both.
    """
    claim = _CLAIM.search(path.name)
    digest = "" if claim is None else sha256_of(path)
    if claim is not None and not digest.startswith(claim[1]):
        raise UserError(f"{path} is damaged or another file: its name tells SHA-256 {claim[1]}..., it has {digest}")


def _download(file: PinnedFile, path: Path) -> None:
    """Writes to a temporary file beside ``path`` and renames it, so that a broken download is never seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    logger.warning("downloading %s (%d MB) to %s", file.url, file.megabytes, path)
    # A name of its own, since others may fetch it too; and no mkstemp, whose files are the owner's alone.
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as target, urllib.request.urlopen(file.url, timeout=TIMEOUT_SECONDS) as source:
            shutil.copyfileobj(source, target)
        digest = sha256_of(temporary)
        if not digest.startswith(file.sha256):
            raise OSError(f"what arrived has SHA-256 {digest}, expected {file.sha256}")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _offline() -> bool:
    values = (os.environ.get(name, "") for name in ("SMALTI_OFFLINE", "HF_HUB_OFFLINE"))
    return any(value.strip().lower() in {"1", "true", "yes", "on"} for value in values)


def _unavailable(file: PinnedFile, option: str, reason: str) -> UserError:
    digits = "" if not file.sha256 else f", SHA-256 {file.sha256}{'...' if len(file.sha256) < 64 else ''}"
    return UserError(
        f"cannot download {file.url}: {reason}. Fetch it elsewhere ({file.megabytes} MB{digits}) and put it at "
        f"{cache_folder() / file.name}, or give its path as option {option!r}"
    )
