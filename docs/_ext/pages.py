"""Generated pages: written only where they changed, so that a second build does little."""

from collections.abc import Iterable, Sequence
from pathlib import Path


class Pages:
    """The pages below one folder.

    Args:
        folder: where they lie; everything in it is generated.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: set[Path] = set()

    def write(self, name: str, text: str) -> None:
        """Writes a page, as ``parts/losses/hinge.rst``."""
        path = self.folder / name
        self.written.add(path)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def sweep(self) -> None:
        """Removes what an earlier build wrote and this one did not."""
        for path in self.folder.rglob("*"):
            if path.is_file() and path not in self.written:
                path.unlink()


def title(text: str, line: str = "=") -> str:
    """A heading of reStructuredText.

    >>> title("hinge")
    'hinge\\n=====\\n'
    """
    return f"{text}\n{line * len(text)}\n"


def indented(text: str, by: int = 3) -> str:
    """Every line that is not empty moved to the right."""
    return "\n".join(" " * by + line if line else "" for line in text.split("\n"))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], widths: Sequence[int]) -> str:
    """A table whose cells are reStructuredText.

    Args:
        head: of the columns.
        rows: their cells.
        widths: of the columns, relative to each other.
    """
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {' '.join(map(str, widths))}", ""]
    for row in (head, *rows):
        for number, cell in enumerate(row):
            first, *rest = (cell or "\\-").split("\n")
            lines.append(f"   {'*' if number == 0 else ' '} - {first}")
            lines += [f"       {line}" if line else "" for line in rest]
    return "\n".join(lines) + "\n"


def code(text: str, language: str) -> str:
    """A block of code."""
    return f".. code-block:: {language}\n\n{indented(text.strip(chr(10)))}\n"


def toctree(entries: Iterable[str], *, hidden: bool = False, caption: str = "") -> str:
    """A table of contents; the entries are names of documents, or ``Title <document>``."""
    options = "   :hidden:\n" * hidden + (f"   :caption: {caption}\n" if caption else "   :maxdepth: 1\n")
    return f".. toctree::\n{options}\n" + "".join(f"   {entry}\n" for entry in entries)
