"""The Markdown that people read: its links, its headings as anchors, its blocks of code."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^(`{3,})([^\n]*)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!\\)\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*([^()\s]*(?:\([^()]*\)[^()\s]*)*)\s*\)")


def markdown() -> list[Path]:
    """Every Markdown file of the repository that is a page, README first."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def prose(text: str) -> str:
    """A page without its blocks of code, and without code in its lines."""
    return re.sub(r"`[^`\n]+`", "code", _FENCE.sub("", text))


def links(text: str) -> list[str]:
    """Where its links and pictures lead."""
    return _LINK.findall(re.sub(r"\n(?!\n)", " ", prose(text)))


def anchors(text: str) -> set[str]:
    """The anchors of its headings, as GitHub and the site make them."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} (.+)$", _FENCE.sub("", text), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
    return {f"{slug}-{number}" if number else slug for slug, last in found.items() for number in range(last + 1)}


def blocks(text: str) -> list[tuple[str, str]]:
    """Info string and text of each block of code."""
    return [(info.strip(), body) for _, info, body in _FENCE.findall(text)]
