"""Words -> adapter: a model of ours or from elsewhere, a codec, a folder of reconstructions, an object in Python."""

import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from smalti.evaluation._codecs import Codec, is_codec
from smalti.evaluation._diffusers import class_in, open_diffusers
from smalti.evaluation._pairs import Pairs
from smalti.evaluation.adapters import Adapter, Ours
from smalti.interop._classes import READ
from smalti.interop.opening import open_model
from smalti.registry import UserError, is_standard, shown

IMAGES = "images:"
_OBJECT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
ASKED = ("encode", "decode", "factor", "codebook_sizes")


def open_adapter(
    words: str,
    *,
    originals: Sequence[str] = (),
    format: str = "auto",
    name: str | None = None,
    trust_code: bool = False,
) -> Adapter:
    """What is to be evaluated.

    Args:
        words: a run, a saved model, ``owner/name`` on the Hub or a foreign checkpoint; a folder of diffusers of any
            class that encodes and decodes; ``images:DIR``, reconstructions with the names of their originals;
            ``jpeg:q=50``, ``webp:q=50``, ``png``; or ``package.module:object``, whose import runs its code.
        originals: names of the images, for ``images:DIR``.
        format: of a foreign checkpoint.
        name: what results call it; None: after the last part of its path.
        trust_code: whether a saved model's configuration may name classes outside smalti.

    Raises:
        UserError: if there is no such thing, or it cannot be evaluated.
    """
    if words.startswith(IMAGES):
        adapter: Adapter = Pairs(Path(words.removeprefix(IMAGES)), originals)
    elif is_codec(words):
        adapter = Codec(words)
    elif _OBJECT.match(words) and not Path(words).exists():
        adapter = _object(words)
    elif Path(words).is_dir() and (class_in(Path(words)) or READ[0]) not in READ:
        adapter = open_diffusers(Path(words), _called(words))
    else:
        adapter = _model(words, format, trust_code)
    adapter.name = name or adapter.name
    return adapter


def _model(words: str, format: str, trust_code: bool) -> Adapter:
    model = open_model(words, format, trust_code=trust_code)
    lacking = [asked for asked in ASKED if not hasattr(model, asked)]
    if lacking:
        raise UserError(f"{words}: {type(model).__name__} has no {lacking[0]}: expected an autoencoder")
    return Ours(model, _called(words), words)


def _object(words: str) -> Adapter:
    """An object of the user's own modules: an adapter, or a module with ``encode``, ``decode`` and ``factor``.

    The module is imported, and a class of torch modules made without arguments; nothing else is called.
    """
    module, _, attribute = words.partition(":")
    if is_standard(module):
        raise UserError(f"{words}: {module} belongs to Python's standard library: expected a module of your own")
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # the user's own module may fail in any way
        raise UserError(f"{words}: {type(error).__name__}: {error}") from error
    if isinstance(found, type) and issubclass(found, nn.Module):
        try:
            found = found()
        except TypeError as error:
            raise UserError(f"{words}: cannot be made without arguments: {error}") from error
    if isinstance(found, Adapter):
        return found
    lacking = [asked for asked in ASKED if not hasattr(found, asked)]
    if lacking or not isinstance(found, nn.Module):
        what = f"no {lacking[0]}" if lacking else "no torch.nn.Module"
        raise UserError(f"{words}: {shown(type(found).__name__)} is {what}: expected a module with {', '.join(ASKED)}")
    return Ours(found.eval(), attribute, words)


def _called(words: str) -> str:
    """The last part of a path that says something: ``runs/mine/model`` is called mine."""
    parts = [part for part in Path(words).parts if part not in {"model", "checkpoints", "/", "."}]
    return parts[-1] if parts else words
