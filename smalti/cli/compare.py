"""``smalti compare``: results of evaluations side by side."""

from pathlib import Path
from typing import Annotated

import typer

from smalti.writing import to_json, write_whole


def compare(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULT", help="Files evaluation.json, or folders that contain one.", show_default=False
        ),
    ],
    allow_mixed: Annotated[
        bool, typer.Option("--allow-mixed", help="Also compare different protocols or images, and mark them with *.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also write an HTML page: sortable table, rate-distortion plot, worst images."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Compare results of `smalti evaluate` in one table.

    Results of different protocols or images are refused, with a list of what differs.

    Example: smalti compare results/ours results/jpeg --html comparison.html
    """
    from smalti.evaluation import comparison as table
    from smalti.evaluation.results import read_result

    found = table.compared([read_result(path) for path in results], mixed=allow_mixed)
    if html is not None:
        from smalti.evaluation.page import page
        from smalti.report import heading

        write_whole(html, page(found, [path if path.is_dir() else path.parent for path in results], heading))
    if as_json:
        rows = [
            {
                "name": name,
                "numbers": dict(result.numbers),
                "intervals": dict(result.intervals),
                "protocol": result.protocol["name"],
                "protocol_hash": result.protocol["hash"],
                "samples": result.samples,
                "differences": found.differences.get(name, {}),
            }
            for name, result in zip(found.names, found.results, strict=True)
        ]
        typer.echo(to_json(rows))
    elif markdown:
        typer.echo(table.markdown(found))
    else:
        typer.echo(table.text(found))
    if html is not None:
        typer.echo(f"page: {html}", err=True)
