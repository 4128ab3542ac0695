"""One error that lists every problem of a recipe, each with its place."""

from collections.abc import Sequence
from dataclasses import dataclass

from smalti.registry import UserError


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Args:
        place: dotted path, such as ``objective.generator.perceptual.wieght``.
        message: what is wrong, what is allowed, the nearest good spelling.
        where: file and line, or ``(--set)``; empty if the value came from Python.
    """

    place: str
    message: str
    where: str = ""

    def __str__(self) -> str:
        where = f" ({self.where.strip('()')})" if self.where else ""
        return f"{self.place or 'recipe'}{where}: {self.message}"


class ConfigError(UserError):
    """All problems of one recipe or mapping."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = [str(problem) for problem in self.problems]
        count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
        super().__init__(lines[0] if len(lines) == 1 else "\n  ".join([f"{count}:", *lines]))
