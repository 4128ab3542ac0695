"""``smalti train``: a recipe -> a run folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smalti.cli._model import TrustCode
from smalti.cli._options import Overrides, RecipeName
from smalti.cli._output import drop_unwritten
from smalti.cli._table import print_rows
from smalti.cli.doctor import told
from smalti.registry import UserError
from smalti.writing import to_json

if TYPE_CHECKING:
    from smalti.engine.result import RunResult

Data = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Train on the images (or the token store) here instead of the recipe's data."),
]


def train(
    recipe: Annotated[
        str,
        RecipeName,
    ],
    overrides: Overrides = None,
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The run folder to write.", show_default="runs/RECIPE")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the run folder.")] = False,
    reschedule: Annotated[
        bool,
        typer.Option(
            "--reschedule", help="With --resume: accept that a new max_steps changes the learning-rate schedule."
        ),
    ] = False,
    allow_changed_data: Annotated[
        bool, typer.Option("--allow-changed-data", help="With --resume: accept that the data has changed.")
    ] = False,
    trust_code: TrustCode = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Make one step, then print parameter counts and memory.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, for programs.")] = False,
) -> None:
    """Train the model of a recipe.

    The run folder receives the model, its metrics on held-out images, sample images, curves and an HTML report. Ctrl-C
    finishes the current step, saves a checkpoint and exits; --resume continues exactly from there.

    Example: smalti train quickstart --out runs/quickstart
    """
    import smalti
    from smalti.engine.decoration import decoration
    from smalti.nn.distributed import rank

    if dry_run:
        table = _dry_run(recipe, overrides or [], data, trust_code)
        if rank() == 0:
            typer.echo(table)
        return
    with decoration():
        result = smalti.train(
            recipe,
            overrides or (),
            data=data,
            out=out,
            resume=resume,
            trust_code=trust_code,
            reschedule=reschedule,
            allow_changed_data=allow_changed_data,
        )
        if rank() == 0:
            _tell(result, as_json)
    drop_unwritten()


def _dry_run(recipe: str, overrides: list[str], data: Path | None, trust_code: bool) -> str:
    from smalti.assembly.assemble import assemble
    from smalti.assembly.recipe import load_recipe

    read = load_recipe(recipe, overrides, data, trust_code=trust_code)
    return assemble(read, Path("runs") / read.name).dry_run().table()


def _tell(result: "RunResult", as_json: bool) -> None:
    pictures = _report(result.folder)
    if as_json:
        found = {
            "folder": str(result.folder),
            "step": result.step,
            "finished": result.finished,
            "evaluation": dict(result.evaluation),
            "report": [str(path) for path in pictures],
            "diagnosis": [finding.as_dict() for finding in result.findings],
        }
        typer.echo(to_json(found))
        return
    if result.findings:
        for line in [*told(result.findings), ""]:
            typer.echo(line)
    if not result.finished:
        typer.echo(f"stopped at step {result.step}; `--out {result.folder} --resume` goes on from there")
        return
    print_rows(result.evaluation)
    typer.echo("")
    for what, path in _places(result.folder, pictures):
        typer.echo(f"{what:9} {path}")


def _report(folder: Path) -> list[Path]:
    from smalti.report import report

    try:
        return report(folder)
    except UserError as error:  # the run itself has ended well
        typer.echo(f"no report: {error}", err=True)
        return []


def _places(folder: Path, pictures: list[Path]) -> list[tuple[str, Path]]:
    """What a run left behind and where, in the order in which a reader wants it."""
    samples = sorted((folder / "samples").glob("*.png"))[-1:]
    places = [("page", path) for path in pictures if path.suffix == ".html"]
    places += [("curves", path) for path in pictures if path.suffix == ".png"]
    places += [("pictures", path) for path in samples]
    return [*places, ("model", folder / "model"), ("numbers", folder / "evaluation.json")]
