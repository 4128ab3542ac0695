"""Where the files of tar archives lie, so that any of them is read without its neighbours."""

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from smalti.registry import UserError

Span = tuple[int, int]  # first byte and number of bytes within the archive


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Files of an archive that stand together and share a name up to the first dot of its last part.

    Args:
        archive: number of the archive.
        key: that name, with its folders.
        members: what comes after the dot, in lower case -> where it lies.
    """

    archive: int
    key: str
    members: dict[str, Span]


def split_name(name: str) -> tuple[str, str]:
    """Key and suffix of a member.

    >>> split_name("a.b/0001.mask.PNG"), split_name("0001")
    (('a.b/0001', 'mask.png'), ('0001', ''))
    """
    folder, slash, last = name.rpartition("/")
    first, _, suffix = last.partition(".")
    return f"{folder}{slash}{first}", suffix.lower()


def samples_of(archives: Sequence[Path]) -> Iterator[Sample]:
    """The samples of all archives in their order; headers are read, contents are not.

    Raises:
        UserError: naming an archive that is missing, compressed, damaged or cut short.
    """
    for number, path in enumerate(archives):
        key, members = "", dict[str, Span]()
        for name, span in _members(path):
            found, suffix = split_name(name)
            if found != key or suffix in members:
                if members:
                    yield Sample(archive=number, key=key, members=members)
                key, members = found, {}
            members[suffix] = span
        if members:
            yield Sample(archive=number, key=key, members=members)


def read_span(path: Path, span: Span) -> bytes:
    """The bytes of a member.

    Raises:
        UserError: if the archive cannot be read, or has become shorter.
    """
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(span[0])
            content = file.read(span[1])
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    if len(content) < span[1]:
        raise UserError(f"{path}: it ends within a file that it had when it was opened")
    return content


def _members(path: Path) -> Iterator[tuple[str, Span]]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if file.read(6).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
                raise UserError(f"{path} is compressed: files are read at random, which needs plain tar archives")
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # it would keep all headers
                if not member.isreg():
                    continue
                if member.offset_data + member.size > size:
                    raise UserError(f"{path} is cut short within {member.name!r}")
                yield member.name, (member.offset_data, member.size)
            _require_end(path, archive.offset)
    except tarfile.TarError as error:
        raise UserError(f"{path} is no tar archive, or damaged: {error}") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error


def _require_end(path: Path, offset: int) -> None:
    """tarfile takes a header that it does not understand for the end; the end is a block of zeros, or of the file."""
    with path.open("rb") as file:
        file.seek(offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise UserError(f"{path} is damaged at byte {offset}: no header of a file stands there")
