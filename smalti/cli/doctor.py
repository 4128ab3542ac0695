"""``smalti doctor``: what is wrong with a run, or will be with a recipe."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smalti.cli._model import TrustCode
from smalti.registry import UserError
from smalti.writing import to_json

if TYPE_CHECKING:
    from smalti.diagnosis import Finding

FOUND = 3
HEALTHY = "nothing found"


def doctor(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="RUN", help="A run folder; the run may still be training.", show_default=False),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="RECIPE", help="Train the first steps of this recipe instead.", show_default=False),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="With --recipe: train on the images here.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="With --recipe: change a value. Repeatable.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="With --recipe: number of steps.")] = 100,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with code 3 if there is a problem that has not passed.")
    ] = False,
    trust_code: TrustCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON, for programs.")] = False,
) -> None:
    """Diagnose a run: what is wrong, and what to change.

    A run is read from its folder. With --recipe, a recipe is trained for its first steps in a temporary folder, with
    the schedules of the full run.

    Example: smalti doctor runs/quickstart
    """
    findings, unseen = _read(run, recipe, data, overrides or [], steps, trust_code)
    standing = [finding for finding in findings if finding.over is None]
    if as_json:
        found = [finding.as_dict() for finding in findings]
        typer.echo(to_json({"findings": found, "standing": len(standing), "not_examined": unseen}))
    else:
        for line in told(findings):
            typer.echo(line)
        for what in unseen:
            typer.echo(f"not examined: {what}")
    if strict and standing:
        raise typer.Exit(FOUND)


def _read(
    run: Path | None, recipe: str | None, data: Path | None, overrides: list[str], steps: int, trust_code: bool
) -> tuple[list["Finding"], list[str]]:
    if (run is None) == (recipe is None):
        what = "both" if recipe is not None else "neither"
        raise UserError(f"expected a run folder or --recipe, got {what}: smalti doctor runs/quickstart")
    if recipe is not None:
        return _try(recipe, data, overrides, steps, trust_code)
    if data is not None or overrides:
        raise UserError(f"{'--data' if data is not None else '--set'} belongs to --recipe: a run is read as it is")
    from smalti.report import findings_of, read_run
    from smalti.report.run import RECIPE

    found = read_run(run or Path())
    unread = [line for name, line in found.unread.items() if name == RECIPE]
    return findings_of(found, unread.append), unread


def _try(
    recipe: str, data: Path | None, overrides: list[str], steps: int, trust_code: bool
) -> tuple[list["Finding"], list[str]]:
    from smalti.assembly.assemble import assemble
    from smalti.assembly.recipe import load_recipe
    from smalti.engine.diagnosis.trial import left_out, settings_of, trial

    whole = load_recipe(recipe, overrides, data, trust_code=trust_code)
    without = ["validation=null"] if "validation" in whole.sections else []
    read = load_recipe(recipe, [*overrides, *settings_of(steps), *without], data, trust_code=trust_code)
    with tempfile.TemporaryDirectory(prefix="smalti-doctor-") as folder:
        trainer = assemble(read, Path(folder) / "run")
        return list(trial(trainer, steps).findings), list(left_out(trainer, steps))


def told(findings: Sequence["Finding"]) -> list[str]:
    """The findings as lines for a reader.

    >>> told([])
    ['nothing found']
    """
    lines: list[str] = []
    for finding in findings:
        about = f" ({finding.subject})" if finding.subject else ""
        when = f"step {finding.step}" + (f", over since step {finding.over}" if finding.over is not None else "")
        seen = finding.numbers()
        lines += [f"{finding.id}{about}, {when}" + (f": {seen}" if seen else "")]
        lines += [f"  likely  {finding.cause}", f"  change  {finding.change}", f"  more    {finding.link}"]
    return lines or [HEALTHY]
