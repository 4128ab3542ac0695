"""What a file is, told by its first bytes: the suffix is what somebody called it.

safetensors begins with the length of its header and a brace, a checkpoint of torch is a zip that holds ``data.pkl``, or
a bare pickle. Everything else that people pass in their place is called by its name.
"""

import re
import zipfile
from pathlib import Path
from typing import Literal

from smalti.registry import UserError

Kind = Literal["safetensors", "pickle"]
_READ = 1024
_MOST_HEADER = 100_000_000  # bytes, the limit of safetensors itself
_TORCH_BEFORE_1_6 = b"L119547037146038801333356L"  # its magic number, in a pickle of text
# (place, bytes) -> what the file is.
SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (
        0,
        b"version https://git-lfs",
        "a pointer of Git LFS in place of the file: `git lfs pull` fetches what it stands for",
    ),
    (0, b"GGUF", "GGUF, weights of llama.cpp's programs"),
    (0, b"ggjt", "GGML, weights of llama.cpp's programs"),
    (0, b"lmgg", "GGML, weights of llama.cpp's programs"),
    (0, b"\x89HDF\r\n\x1a\n", "HDF5, as Keras writes weights"),
    (0, b"\x93NUMPY", "an array of numpy"),
    (0, b"\x1f\x8b", "compressed by gzip: unpack it first"),
    (0, b"BZh", "compressed by bzip2: unpack it first"),
    (0, b"\xfd7zXZ\x00", "compressed by xz: unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (0, b"Rar!", "a rar archive: unpack it first"),
    (257, b"ustar", "a tar archive: unpack it first"),
    (4, b"TFL3", "a model of TensorFlow Lite"),
    (0, b"%PDF", "a PDF"),
    (0, b"\x89PNG", "an image (PNG)"),
    (0, b"\xff\xd8\xff", "an image (JPEG)"),
    (0, b"GIF8", "an image (GIF)"),
    (0, b"RIFF", "an image, a sound or a film (RIFF)"),
    (0, b"SQLite format 3", "a database of SQLite"),
    (0, b"PAR1", "a table (Parquet)"),
    (0, b"\x7fELF", "a program"),
)


def kind_of(path: Path) -> Kind:
    """How a file of weights is to be read.

    Raises:
        UserError: saying what it is instead, or that it is damaged or cannot be opened.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_READ)
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not start:
        raise UserError(f"{path}: damaged, it is empty")
    if _is_safetensors(start, size):
        return "safetensors"
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        _check_zip(path)
        return "pickle"
    what = _named(start) or _text(start)
    if what is not None:
        raise UserError(f"{path}: no weights: it is {what}")
    if path.suffix == ".safetensors" and start[:1] != b"\x80":
        raise UserError(f"{path}: damaged, it is no complete safetensors file (its header cannot be read)")
    return "pickle"


def _is_safetensors(start: bytes, size: int) -> bool:
    length = int.from_bytes(start[:8], "little")
    return start[8:9] == b"{" and 2 <= length <= min(_MOST_HEADER, size)


def _named(start: bytes) -> str | None:
    for place, magic, what in SIGNATURES:
        if start[place : place + len(magic)] == magic:
            return what
    if re.match(
        rb"\x08[\x01-\x20][\x12\x1a\x22\x2a\x32\x3a\x42]", start
    ):  # protobuf: a version, then its maker or graph
        return "ONNX, a program in place of a state dict"
    if re.match(rb"[\x81-\x8f][\xa1-\xbf\xd9]", start):  # a mapping whose first key is text
        return "msgpack, as Flax writes weights"
    return None


def _text(start: bytes) -> str | None:
    """What a file of text is; None if it is none."""
    if start.startswith(_TORCH_BEFORE_1_6):
        return None
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "text (UTF-16)"
    text = _decoded(start)
    if text is None or any(ord(letter) < 32 and letter not in "\t\n\r\f" for letter in text):
        return None
    body = text.lstrip()
    if body.lower().startswith(("<!doctype html", "<html", "<head", "<?xml", "<!--")):
        return "a page of HTML or XML, as a download leaves it that asked for a login or found no such file"
    first = next(iter(body.splitlines()), "")
    return f"text, which begins with {first[:40]!r}" if first else "text, and blank"


def _decoded(start: bytes) -> str | None:
    """The beginning of a text in UTF-8 or Latin-1."""
    try:
        return start.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if len(start) == _READ and error.start >= _READ - 3:  # what was read ends inside a letter
            return start[: error.start].decode("utf-8-sig")
    text = start.decode("latin-1")
    return None if any(0x7F <= ord(letter) <= 0x9F for letter in text) else text


def _check_zip(path: Path) -> None:
    """Whether a zip is a checkpoint of torch.

    Raises:
        UserError: saying what it is instead, or that its end is missing.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            held = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(
            f"{path}: damaged, it begins as a zip (torch writes its checkpoints so) and has no readable end: cut off?"
        ) from error
    if any("/code/" in name for name in held) and any(name.endswith("/constants.pkl") for name in held):
        raise UserError(f"{path}: no weights: it is a program of TorchScript; save its state_dict() in its place")
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in held):
        return
    if held and all(name.endswith(".npy") for name in held):
        raise UserError(f"{path}: no weights: it is npz, arrays of numpy")
    listed = ", ".join(name[:40] for name in held[:3]) or "nothing"
    raise UserError(f"{path}: no weights: it is a zip archive and no checkpoint of torch, it holds {listed}")
