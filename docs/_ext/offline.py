"""No page asks another machine for anything: scripts, styles, fonts and pictures are files of the site."""

import re
from pathlib import Path
from typing import Any

_ASKS = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["'](?:https?:)?//[^"']*|"""
    r"""<link\b(?=[^>]*\brel=["'](?:stylesheet|preload|preconnect|icon)["'])[^>]*\bhref=["'](?:https?:)?//[^"']*|"""
    r"""@import\s+(?:url\()?["']?(?:https?:)?//[^"')]*|url\(["']?(?:https?:)?//[^"')]*"""
)


def requests(text: str) -> list[str]:
    """What a page or a style sheet would fetch from elsewhere; links that a reader may follow are none.

    >>> requests('<a href="https://arxiv.org"></a><script async src="https://cdn.example/x.js"></script>')
    ['<script async src="https://cdn.example/x.js']
    """
    return _ASKS.findall(text)


def on_build_finished(app: Any, error: Exception | None) -> None:
    """Warns about each page that would."""
    from sphinx.util import logging

    if error is not None or app.builder.format != "html":
        return
    for path in sorted(Path(app.outdir).rglob("*")):
        if path.suffix in {".html", ".css"}:
            for found in requests(path.read_text(encoding="utf-8")):
                logging.getLogger(__name__).warning("%s asks another machine: %s", path.name, found)
