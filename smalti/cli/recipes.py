"""``smalti recipes``: list, show, check, terms, schema."""

from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer

from smalti.cli._model import TrustCode
from smalti.cli._options import Overrides, RecipeName
from smalti.registry import UserError
from smalti.writing import to_json, write_whole

recipes = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, show and check recipes.\n\nExample: smalti recipes check my-recipe.yaml",
)

Name = Annotated[
    str,
    RecipeName,
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
SCHEMA_FILE = "smalti-recipe.schema.json"
SCHEMA_LINE = f"# yaml-language-server: $schema={SCHEMA_FILE}"  # editors look for it beside the recipe


@recipes.command("list")
def list_recipes(as_json: AsJson = False) -> None:
    """List the recipes that ship with smalti.

    Example: smalti recipes list
    """
    from smalti.assembly.recipe import shipped

    found = {name: headline(recipe_text(name)) for name in shipped()}
    if as_json:
        typer.echo(to_json([{"name": name, "description": text} for name, text in found.items()]))
        return
    width = max(map(len, found), default=0)
    for name, text in found.items():
        typer.echo(f"{name:{width}}  {text}")


def recipe_text(name: str) -> str:
    """A recipe that comes with smalti, as it is written."""
    return (resources.files("smalti.recipes") / f"{name}.yaml").read_text(encoding="utf-8")


def headline(text: str) -> str:
    """The first comment of a recipe, which says what it is.

    >>> headline("# VQ-VAE on photos.\\nmodel:\\n")
    'VQ-VAE on photos.'
    """
    first = text.partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


@recipes.command()
def show(
    recipe: Name,
    overrides: Overrides = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="Check it and fill in all defaults.")] = False,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Print a recipe as YAML.

    The second line names the JSON schema that lets editors complete and check it; `smalti recipes schema --file` writes
    that schema.

    Example: smalti recipes show vqgan-f16 > my-recipe.yaml
    """
    from smalti.assembly.recipe import load_recipe, read_document, shipped
    from smalti.config import dump

    if recipe in shipped() and not (overrides or resolved or as_json):
        title, _, rest = recipe_text(recipe).partition("\n")
        typer.echo(f"{title}\n{SCHEMA_LINE}\n{rest}", nl=False)
        return
    if resolved:
        found = load_recipe(recipe, overrides or (), trust_code=trust_code).plain()
    else:
        found = read_document(recipe, overrides or ()).data
    text = to_json(found) if as_json else f"{SCHEMA_LINE}\n{dump(found)}"
    typer.echo(text.rstrip("\n"))


@recipes.command()
def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="RECIPE", help="Recipes to check.", show_default="all that ship with smalti"),
    ] = None,
    overrides: Overrides = None,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Find all mistakes in recipes.

    Needs no data, weights or GPU. Modules that a recipe names by import path are imported, which runs their code. The
    exit code is 2 if there is a mistake.

    Example: smalti recipes check my-recipe.yaml
    """
    from smalti.assembly.recipe import shipped

    wanted = names or [form for name in shipped() for form in (name, f"tiny-{name}")]
    found = {name: list(problems_of(name, overrides or [], trust_code)) for name in wanted}
    if as_json:
        typer.echo(to_json([{"recipe": name, "problems": listed} for name, listed in found.items()]))
    else:
        for name, listed in found.items():
            _say(name, listed)
    if any(found.values()):
        raise typer.Exit(2)


def problems_of(name: str, overrides: list[str], trust_code: bool = False) -> Iterator[Mapping[str, str]]:
    """Every problem of a recipe as place, message and file with line."""
    from smalti.assembly.recipe import load_recipe
    from smalti.config import ConfigError

    try:
        load_recipe(name, overrides, trust_code=trust_code)
    except ConfigError as error:
        for problem in error.problems:
            text = {"place": problem.place, "message": problem.message, "where": problem.where}
            yield {**text, "text": str(problem)}
    except UserError as error:
        yield {"place": "", "message": str(error), "where": "", "text": str(error)}


def _say(name: str, problems: list[Mapping[str, str]]) -> None:
    if not problems:
        typer.echo(f"{name}: ok")
        return
    typer.echo(f"{name}: {len(problems)} problem{'s' if len(problems) > 1 else ''}", err=True)
    for problem in problems:
        typer.echo(f"  {problem['text']}", err=True)


@recipes.command()
def terms(
    as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the Markdown page docs/terms.md.")] = False,
) -> None:
    """List all loss terms with phase, formula and paper.

    Example: smalti recipes terms --json
    """
    from smalti.objectives.catalogue import as_markdown, catalogue

    entries = catalogue()
    if as_json:
        typer.echo(to_json([entry.plain() for entry in entries]))
    elif markdown:
        typer.echo(as_markdown(entries), nl=False)
    else:
        width = max(len(entry.name) for entry in entries)
        for entry in entries:
            typer.echo(f"{entry.name:{width}}  {entry.phase:13}  {entry.formula}  {entry.paper}".rstrip())


@recipes.command()
def schema(
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help=f"Write it to a file, such as {SCHEMA_FILE} beside your recipes.", show_default=False
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Print the JSON schema of recipes, for editors.

    Example: smalti recipes schema --file smalti-recipe.schema.json
    """
    from smalti.cli._schema import recipe_schema

    if file is None and force:
        raise UserError("--force says that --file may be replaced: give --file too")
    if file is not None:
        from smalti.cli._files import refuse_existing

        refuse_existing(file, force)
    found: dict[str, Any] = recipe_schema()
    if file is None:
        typer.echo(to_json(found))
        return
    write_whole(file, to_json(found) + "\n")
    typer.echo(f"schema of recipes -> {file}")
