"""Markdown that is read on GitHub and in the site: links between the repository's root and its pages."""

import re
import textwrap
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

from _ext.api import packages
from _ext.pages import Pages
from _ext.parts import chapter, kinds, members

ROOT = Path(__file__).parents[2]
PAGES = {"README.md": "overview.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
_FILE = re.compile(r"^```(\w+) (\S+\.\w+)$", re.MULTILINE)
_CODE = re.compile(r"\]\(\.\./(smalti(?:/[\w./-]+)?)\)")
_COMMAND = re.compile(r"(smalti|make|pip|python|torchrun) ")
_SESSION = re.compile(r"(?<=\n)\n((?: {4}>>> .*\n)(?: {4}.*\n|\n(?= {4}>>> ))*)", re.MULTILINE)
_NAMED = re.compile(r"^```(yaml) (\S+)$", re.MULTILINE)


def write(pages: Pages) -> None:
    """The files of the root as pages."""
    for name, page in PAGES.items():
        pages.write(page, moved((ROOT / name).read_text(encoding="utf-8")))


def moved(text: str) -> str:
    """A file of the root with links that hold two folders further down.

    >>> moved("[a](docs/a.md#b), [c](CONTRIBUTING.md), [d](https://arxiv.org)")
    '[a](../a.md#b), [c](contributing.md), [d](https://arxiv.org)'
    """
    text = re.sub(r"\]\(docs/", "](../", with_languages(text))
    for name, page in PAGES.items():
        text = text.replace(f"]({name}", f"]({page}")
    return text


@cache
def sources() -> dict[str, str]:
    """A file or folder of the code -> the page of the site that describes it."""
    found = {f"smalti/{package}": f"reference/api/smalti.{package}" for package in packages()}
    found |= {"smalti": "reference/parts/index"}
    for kind, base in kinds().items():
        found[base.package.replace(".", "/")] = f"reference/parts/{chapter(kind)}/index"
    for key, (cls, *_) in members().items():
        kind, _, name = key.partition("/")
        found[f"{cls.__module__.replace('.', '/')}.py"] = f"reference/parts/{chapter(kind)}/{name}"
    return found


def to_page(link: re.Match[str]) -> str:
    """A link to the code as a link to its page."""
    return f"]({sources().get(link[1].rstrip('/'), link[1])})"


def with_languages(text: str) -> str:
    """Blocks of code without a language as commands, or as plain text: Sphinx would take them for Python.

    >>> with_languages("```\\nsmalti train x\\n```\\n```\\na b\\n```").split("\\n")
    ['```sh', 'smalti train x', '```', '```text', 'a b', '```']
    """
    lines = text.split("\n")
    opening: int | None = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if opening is None:
            opening = number
            continue
        if lines[opening] == "```":
            commands = any(_COMMAND.match(inner) for inner in lines[opening + 1 : number])
            lines[opening] = "```sh" if commands else "```text"
        opening = None
    return "\n".join(lines)


def with_sessions(text: str) -> str:
    """Indented examples as blocks of Python, for their colours.

    >>> with_sessions("Then\\n\\n    >>> 1 + 1\\n    2\\n\\nand").split("\\n")
    ['Then', '', '```pycon', '>>> 1 + 1', '2', '```', '', 'and']
    """
    return _SESSION.sub(lambda block: f"\n```pycon\n{textwrap.dedent(block[1])}```\n", text)


def in_site(text: str) -> str:
    """A page of docs/ with links to the root's pages and to those of the code, and the names of its files as captions.

    >>> in_site("[a](../smalti/losses/hinge.py), [b](../smalti/losses)")
    '[a](reference/parts/losses/hinge), [b](reference/parts/losses/index)'
    >>> in_site("[a](../README.md#two-commands)")
    '[a](reference/overview.md#two-commands)'
    >>> print(in_site("```yaml own.yaml"))
    ```{code-block} yaml
    :caption: own.yaml
    <BLANKLINE>
    """
    text = with_sessions(with_languages(text))
    for name, page in PAGES.items():
        text = text.replace(f"](../{name}", f"](reference/{page}")
    text = _CODE.sub(to_page, text)
    text = _FILE.sub(r"```{code-block} \1\n:caption: \2\n", text)
    return _NAMED.sub(r"```\1", text).replace("```{code-block} csv", "```{code-block} text")


def listed(text: str, folder: Path) -> str:
    """The first page, its tables of contents complete: ``*`` alone becomes the pages of ``folder`` that none names.

    Patterns that no page fits are left out, for Sphinx would warn of them: a page may come later.

    >>> every = " ".join(listed("wgan\\nno-such-page*\\n*", ROOT / "docs").split())
    >>> every.startswith("wgan "), every.count("wgan"), "no-such" in every
    (True, 1, False)
    """
    lines = [line for line in text.split("\n") if not re.fullmatch(r"[\w-]+\*", line) or any(folder.glob(f"{line}.md"))]
    entries = [re.sub(r".* <(.+)>", r"\1", line) for line in ("index", *lines) if line != "*"]
    names = sorted(path.stem for path in folder.glob("*.md"))
    rest = [name for name in names if not any(fnmatch(name, entry) for entry in entries)]
    return "\n".join("\n".join(rest) if line == "*" else line for line in lines)


def on_source_read(app: Any, name: str, content: list[str]) -> None:
    """Sphinx has read a page."""
    if not name.startswith("reference/") and str(app.env.doc2path(name)).endswith(".md"):
        content[0] = in_site(content[0])
        if name == app.config.root_doc:
            content[0] = listed(content[0], Path(app.srcdir))
