"""Pages: the look that all HTML pages share, and what their scripts do alike. Everything is in the page itself.

>>> from smalti.pages import data_uri, embedded, scripts, style
>>> "prefers" in scripts() and "--accent" in style()
True
"""

import base64
from importlib import resources

from smalti.writing import to_json

_MEDIA = {".png": "image/png", ".webp": "image/webp"}


def style() -> str:
    """The style sheet, for a ``<style>`` in the head: light and dark, from a phone's width on."""
    return _text("style.css")


def scripts() -> str:
    """The script of the switch between light and dark and of the sliders, for a ``<script>`` at the end of the head."""
    return _text("page.js")


def data_uri(content: bytes, suffix: str = ".png") -> str:
    """A picture as an address that holds it.

    >>> data_uri(b"abc", ".webp")
    'data:image/webp;base64,YWJj'

    Args:
        content: of the file.
        suffix: of its name, ``.png`` or ``.webp``.
    """
    return f"data:{_MEDIA[suffix]};base64,{base64.b64encode(content).decode()}"


def embedded(value: object) -> str:
    r"""JSON that may stand inside ``<script type="application/json">``, whatever text is in it.

    >>> embedded({"name": "</script>"})
    '{"name": "\\u003c/script>"}'
    """
    return to_json(value, indent=None).replace("<", "\\u003c")


def _text(name: str) -> str:
    return (resources.files("smalti.pages") / name).read_text(encoding="utf-8")
