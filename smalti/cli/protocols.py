"""``smalti protocols``: how numbers come about, by name."""

from typing import Annotated

import typer

from smalti.writing import to_json

protocols = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, show and compare evaluation protocols.\n\nExample: smalti protocols diff adm llamagen",
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of a protocol, NAME@SIZE, or a YAML file.", show_default=False)
]


@protocols.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the protocols that ship with smalti, with their hashes.

    Example: smalti protocols list
    """
    from smalti.evaluation.protocol import protocol_named, shipped

    found = [protocol_named(name) for name in shipped()]
    if as_json:
        typer.echo(to_json([{"name": one.name, "hash": one.hash, "title": one.title} for one in found]))
        return
    width = max(len(one.name) for one in found)
    for one in found:
        typer.echo(f"{one.name:{width}}  {one.hash}  {one.title}")


@protocols.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Print all fields of a protocol, and which are unverified.

    Example: smalti protocols show adm
    """
    from smalti.evaluation.protocol import protocol_named
    from smalti.evaluation.results import described

    one = protocol_named(name)
    if as_json:
        typer.echo(to_json({**described(one), "title": one.title, "source": one.source}))
        return
    typer.echo(f"{one.name} ({one.hash}): {one.title}")
    for field, value in one.measuring.items():
        mark = "  (not checked against the original)" if field in one.unverified else ""
        typer.echo(f"  {field}: {value}{mark}")


@protocols.command()
def diff(first: Name, second: Name, as_json: AsJson = False) -> None:
    """List how two protocols differ.

    The exit code is 1 if they do, 0 if they are the same.

    Example: smalti protocols diff smalti adm
    """
    from smalti.evaluation.protocol import protocol_named

    one, other = protocol_named(first), protocol_named(second)
    found = one.differences(other)
    if as_json:
        typer.echo(to_json({name: list(values) for name, values in found.items()}))
    else:
        for name, (ours, theirs) in found.items():
            typer.echo(f"{name}: {ours} -> {theirs}")
    raise typer.Exit(1 if found else 0)
