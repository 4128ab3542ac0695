"""The list of pages at the side shows the branch of the page that is open; all of them on every page would be 20 MB."""

from typing import Any


def on_page(app: Any, name: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Sphinx is about to write a page; the theme then asks for the list."""
    whole = context["toctree"]
    context["toctree"] = lambda **options: whole(**{**options, "collapse": True})
