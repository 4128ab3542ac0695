"""Every link of every Markdown page leads somewhere: to a file, to a heading of it, or to a well-formed address."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.docs.pages import ROOT, anchors, links, markdown

ARXIV = re.compile(r"/(abs|pdf)/\d{4}\.\d{4,5}(v\d+)?")
GENERATED = "reference/"  # pages that the site makes; its build checks them


def problem(link: str, page: Path) -> str | None:
    """What is wrong with a link on a page."""
    if "://" in link or link.startswith("mailto:"):
        return address_problem(link)
    name, _, anchor = link.partition("#")
    if name.startswith(GENERATED):
        return None if page.name == "index.md" else "only the site has this page: link to the code, as ../smalti/losses"
    target = page if not name else (page.parent / name).resolve()
    if not target.exists():
        return "no such file"
    if not target.is_relative_to(ROOT):
        return "outside the repository"
    if anchor and anchor not in anchors(target.read_text(encoding="utf-8")):
        return f"no such heading; there are {sorted(anchors(target.read_text(encoding='utf-8')))}"
    return None


def address_problem(link: str) -> str | None:
    """What is wrong with the form of an external link; whether it answers is asked by ``make linkcheck``."""
    parts = urlsplit(link)
    if parts.scheme != "https":
        return "not https"
    if not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc):
        return "no host"
    if parts.netloc == "arxiv.org" and not ARXIV.fullmatch(parts.path):
        return "no number of arXiv"
    return None


@pytest.mark.parametrize("page", markdown(), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    found = {link: problem(link, page) for link in links(page.read_text(encoding="utf-8"))}
    assert {link: why for link, why in found.items() if why} == {}


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ("losses.md#no-such", "no such heading"),
        ("nowhere.md", "no such file"),
        ("#no-such", "no such heading"),
        ("http://arxiv.org/abs/1711.00937", "not https"),
        ("https://arxiv.org/abs/171.00937", "no number"),
        ("https:///abs", "no host"),
        ("../../elsewhere", "no such file"),
        ("reference/cli", "only the site has this page"),
    ],
)
def test_a_broken_link_is_found(link: str, why: str) -> None:
    assert why in (problem(link, ROOT / "docs" / "data.md") or "")


def test_links_of_a_page_are_read_around_code_and_line_breaks() -> None:
    text = "[a\nb](x.md), ![p](q.png) `[c](no.md)`\n```\n[d](no.md)\n```\n[e `f`](y.md#g) [h](https://doi.org/10.1(2)3)"
    assert links(text) == ["x.md", "q.png", "y.md#g", "https://doi.org/10.1(2)3"]


def test_anchors_are_those_of_github() -> None:
    text = "# What `--to` costs: a, b & c\n## [Two](x.md) words\n## Two words\n```\n# no heading\n```\n"
    assert anchors(text) == {"what---to-costs-a-b--c", "two-words", "two-words-1"}
