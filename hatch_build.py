"""What a built wheel takes along from outside the package: the textbook forms that ``smalti bench`` compares with.

An editable install finds them where they stand, in ``benchmarks/``.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class TextbookForms(BuildHookInterface):
    """Puts ``benchmarks/textbook_*.py`` into ``smalti/bench/textbook/`` of the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it packs; ``version`` is "editable" or "standard"."""
        if version != "editable":
            for path in sorted((Path(self.root) / "benchmarks").glob("textbook_*.py")):
                build_data["force_include"][str(path)] = f"smalti/bench/textbook/{path.name}"
