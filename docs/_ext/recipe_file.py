"""The page of what a recipe may say: its sections and the fields of a term, with types and defaults."""

import inspect
from typing import Any

from _ext.annotations import nested
from _ext.docstrings import escaped, qualified
from _ext.pages import Pages, code, title
from _ext.parts import links, options_table
from smalti.assembly.sections import SECTIONS
from smalti.config.schema import type_hints
from smalti.data.transforms import Transform
from smalti.objectives.catalogue import summary
from smalti.objectives.term import TermOptions
from smalti.registry import Part

LEAD = """A recipe is a YAML file with these sections. ``smalti recipes check FILE`` finds every mistake in it,
``smalti recipes show NAME --resolved`` fills in every default, and ``smalti recipes schema --file FILE`` writes the
schema that editors complete from.
"""
ORDER = {
    "objective": "Terms by name, for each player. A term is a loss with the fields below. "
    "``teachers`` are frozen networks whose features terms compare with.",
    "cycle": "Who is updated in which order. By default the generator, then the discriminator if there is one. "
    "``discriminator*5`` repeats; a mapping has ``phase``, ``repeat``, ``reuse`` and ``weight_clip``.",
    "tiny": "Overrides that make the recipe small: ``tiny-NAME`` applies them.",
}
EXAMPLE = """objective:
  generator:
    pixel: {type: l1}
    adversarial: {type: hinge, weight: 0.5, start: 1000}
  discriminator:
    adversarial: {type: hinge, start: 1000}
cycle: [generator, discriminator]"""


def write(pages: Pages) -> None:
    """The page."""
    lines = [title("The recipe file"), LEAD]
    for name, annotation in SECTIONS.items():
        lines += [title(name, "-"), *_section(name, annotation)]
        if name == "objective":
            lines += [code(EXAMPLE, "yaml"), title("Fields of a term", "~"), options_table(TermOptions)]
    pages.write("recipe-file.rst", "\n".join(lines))


def _section(name: str, annotation: Any) -> list[str]:
    if name in ORDER:
        return [ORDER[name] + "\n"]
    members = getattr(annotation, "__args__", (annotation,))
    target = next(member for member in members if member is not type(None))
    if inspect.isclass(target) and issubclass(target, Part):
        return [f"It holds {links()[target]}, with its options.\n"]
    found = [escaped(qualified(summary(target), target)) + "\n", options_table(target)]
    for option, hint in type_hints(target).items():
        found += [f"Of ``{option}``:\n\n{options_table(inner)}" for inner in nested(hint) if inner is not Transform]
    return found
