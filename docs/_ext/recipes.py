"""A page for every shipped recipe, and one for every evaluation protocol."""

from _ext.docstrings import escaped
from _ext.pages import Pages, code, table, title, toctree
from smalti.assembly.recipe import shipped
from smalti.cli.recipes import headline, recipe_text
from smalti.evaluation.protocol import protocol_named
from smalti.evaluation.protocol import shipped as shipped_protocols


def write(pages: Pages) -> None:
    """Both chapters."""
    names = shipped()
    rows = [(f":doc:`{name}`", escaped(headline(recipe_text(name)))) for name in names]
    text = (
        "``smalti train NAME`` trains one of these. ``smalti recipes show NAME > mine.yaml`` copies it.\n"
        "``tiny-NAME`` is the same recipe made small enough for a minute on a CPU.\n"
    )
    body = [title("All recipes"), text, table(("recipe", "what it is"), rows, (25, 75)), toctree(names, hidden=True)]
    pages.write("recipes/index.rst", "\n".join(body))
    for name in names:
        pages.write(f"recipes/{name}.rst", _recipe(name))
    _write_protocols(pages)


def _recipe(name: str) -> str:
    text = recipe_text(name)
    comment, body = [], text.splitlines()
    while body and body[0].startswith("#"):
        comment.append(body.pop(0).removeprefix("#").strip())
    lead = escaped(" ".join(comment))
    run = code(f"smalti train {name}\nsmalti train tiny-{name}   # a minute on a CPU", "sh")
    return "\n".join([title(name), lead, "", run, code("\n".join(body), "yaml")])


def _write_protocols(pages: Pages) -> None:
    names = shipped_protocols()
    found = {name: protocol_named(name) for name in names}
    rows = [(f":doc:`{name}`", escaped(one.title), f"``{one.hash[:12]}``") for name, one in found.items()]
    text = "What must be equal before two numbers may be compared: see :doc:`/evaluation`.\n"
    body = [title("All protocols"), text, table(("protocol", "what it is", "hash"), rows, (25, 55, 20))]
    pages.write("protocols/index.rst", "\n".join([*body, toctree(names, hidden=True)]))
    for name, one in found.items():
        rows = [(f"``{key}``", f"``{value}``") for key, value in one.measuring.items()]
        run = code(f"smalti evaluate MODEL --data DIR --protocol {name}", "sh")
        fields = table(("field", "value"), rows, (30, 70))
        origin = f"Source: {escaped(one.source)}.\n" if one.source else ""
        text = f"{escaped(one.title)}.\n\n{origin}"
        pages.write(f"protocols/{name}.rst", "\n".join([title(name), text, run, fields]))
