"""The Python API: a page for each package, with its public modules. Parts have pages of their own."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import smalti
from _ext.docstrings import escaped, qualified
from _ext.pages import Pages, table, title, toctree
from _ext.parts import registered
from smalti.data.transforms import Transform

ELSEWHERE = {"cli", "recipes", "__main__"}  # the command line's page, and data


def packages() -> list[str]:
    """The public packages and modules right below smalti."""
    names = [module.name for module in pkgutil.iter_modules(smalti.__path__)]
    return [name for name in names if name not in ELSEWHERE and not name.startswith("_")]


def write(pages: Pages) -> None:
    """All pages and their index."""
    names = ["smalti", *(f"smalti.{package}" for package in packages())]
    rows = [(f":doc:`{name}`", escaped(_idea(name))) for name in names]
    lead = "Most programs need ``smalti`` alone: its names load, build and train. The rest serves code of your own.\n"
    body = [title("Python API"), lead, table(("module", "what it holds"), rows, (25, 75)), toctree(names, hidden=True)]
    pages.write("api/index.rst", "\n".join(body))
    for name in names:
        pages.write(f"api/{name}.rst", _page(name))


def _idea(name: str) -> str:
    doc = inspect.getdoc(importlib.import_module(name)) or ""
    return qualified(" ".join(doc.partition("\n\n")[0].split()), importlib.import_module(name))


def _page(name: str) -> str:
    lines = [title(name), f".. automodule:: {name}\n   :members:\n   :ignore-module-all:\n"]
    for module in _modules(name) if name != "smalti" else ():
        lines += [title(module, "-"), f".. automodule:: {module}\n   :members:\n   :ignore-module-all:\n"]
    return "\n".join(lines)


def _modules(name: str) -> Iterator[str]:
    """The public modules of a package that are no parts."""
    package = importlib.import_module(name)
    parts = {cls.__module__ for cls in (*registered(), Transform)}
    for module in pkgutil.iter_modules(getattr(package, "__path__", ())):
        full = f"{name}.{module.name}"
        if not module.name.startswith("_") and full not in parts and not module.ispkg:
            yield full
