"""What the documentation site is made of beyond its Markdown pages: everything else is read from the code.

Before Sphinx looks for pages, :func:`write_pages` fills ``docs/reference`` (which git ignores): a page for each part,
recipe and protocol, the command line, the API, and the Markdown files of the repository's root.
"""

from pathlib import Path
from typing import Any

from _ext import api, commands, docstrings, markdown, navigation, offline, parts, recipe_file, recipes, references
from _ext.pages import Pages

DOCS = Path(__file__).parents[1]


def write_pages(folder: Path = DOCS / "reference") -> Pages:
    """Writes every generated page below ``folder``; what is there and is no page of today is removed."""
    pages = Pages(folder)
    for chapter in (parts, recipe_file, recipes, commands, api, markdown):
        chapter.write(pages)
    pages.sweep()
    return pages


def setup(app: Any) -> dict[str, Any]:
    """Connects the extension with Sphinx."""
    app.connect("config-inited", lambda *_: write_pages())
    app.connect("source-read", markdown.on_source_read)
    app.connect("autodoc-process-docstring", docstrings.on_docstring)
    app.connect("autodoc-process-signature", docstrings.on_signature)
    app.connect("missing-reference", references.on_missing_reference)
    app.connect("html-page-context", navigation.on_page, priority=400)  # before the theme's
    app.connect("build-finished", offline.on_build_finished)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
