"""Reads the zoo and runs its animals."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

import smalti
from smalti.assembly.recipe import load_recipe
from smalti.assembly.recipe import shipped as shipped_names
from smalti.diagnosis import Finding
from smalti.registry import UserError
from smalti.report import findings_of, read_run

HERE = Path(__file__).parent
JUDGED = 60  # updates of a shipped recipe with a discriminator, which in the tiny forms begins at 50 at the latest


@dataclass(frozen=True, kw_only=True)
class Animal:
    """A recipe of the zoo.

    Args:
        name: of it.
        base: stem of the healthy recipe in ``bases``.
        overrides: what is set on it.
        expect: the rule that must name it; None of a healthy one.
        cure: what ``change`` of that rule recommends, set beside ``overrides``.
    """

    name: str
    base: str
    overrides: tuple[str, ...]
    expect: str | None
    cure: tuple[str, ...] = ()

    @property
    def recipe(self) -> str | Path:
        """What it is a variant of: a file of ``bases``, or a shipped recipe."""
        own = HERE / "bases" / f"{self.base}.yaml"
        return own if own.is_file() else self.base

    def run(self, folder: Path, *, seed: int = 0, overrides: tuple[str, ...] = ()) -> tuple[Finding, ...]:
        """Trains it in ``folder``, quietly; what the doctor said."""
        given = (*self.overrides, f"engine.seed={seed}", *overrides)
        try:
            result = smalti.train(self.recipe, given, out=folder, quiet=True)
        except UserError:  # a run that diverges ends with a message; what was said stands in its folder
            if not (folder / "metrics.jsonl").is_file():
                raise
            return tuple(findings_of(read_run(folder)))
        if not result.finished:
            raise InterruptedError(f"{folder.name} was stopped at step {result.step}")
        return tuple(result.findings)

    def cured(self) -> "Animal":
        """The same with its cure."""
        return replace(self, overrides=(*self.overrides, *self.cure))


def sick() -> Iterator[Animal]:
    """The sick ones."""
    yield from _read("sick.yaml")


def healthy() -> Iterator[Animal]:
    """The healthy ones."""
    yield from _read("healthy.yaml")


def shipped(names: Sequence[str] = ()) -> Iterator[Animal]:
    """The tiny forms of the shipped recipes, healthy all of them; of ``names``, or of all."""
    for name in names or shipped_names():
        recipe = load_recipe(f"tiny-{name}")
        steps = recipe.plain()["engine"]["max_steps"]
        judged = recipe.plain().get("discriminator") is not None
        steps = min(steps, JUDGED) if judged else steps
        quick = ["engine.sample_every=0", "engine.checkpoint_every=0", "engine.log_every=10"]
        quick += ["validation=null"] if "validation" in recipe.sections else []  # too few of them for a rule
        quick += [f"engine.max_steps={steps}"]
        players = [(name, player) for name, player in recipe.plain()["optim"].items() if player]
        quick += [f"optim.{name}.warmup={steps // 20}" for name, player in players if player["warmup"] > steps // 2]
        yield Animal(name=f"tiny-{name}", base=f"tiny-{name}", overrides=tuple(quick), expect=None)


def _read(file: str) -> Iterator[Animal]:
    animals: Mapping[str, Mapping[str, object]] = yaml.safe_load((HERE / file).read_text())
    for name, row in animals.items():
        expect = row.get("expect")
        yield Animal(
            name=name,
            base=str(row["base"]),
            overrides=_lines(row.get("set", [])),
            expect=None if expect is None else str(expect),
            cure=_lines(row.get("cure", [])),
        )


def _lines(given: Any) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)
