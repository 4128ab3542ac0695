"""One page that shows a run, or several over each other. Everything is in it: it can be opened and sent."""

import base64
import gzip
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from smalti.diagnosis import all_rules
from smalti.pages import embedded, scripts, style
from smalti.registry import UserError
from smalti.report import facts
from smalti.report.charts import charts
from smalti.report.health import findings_of
from smalti.report.pictures import viewer
from smalti.report.run import EVALUATION, RECIPE, Run
from smalti.report.words import terms
from smalti.writing import write_whole


def write_page(runs: Sequence[Run], path: Path) -> Path:
    """Writes ``path``, an HTML page that needs nothing beside it.

    Args:
        runs: one, shown with all that is known of it; or several, laid over each other.
        path: of the page.

    Raises:
        UserError: if jinja2 or plotly is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise UserError("the report needs jinja2: pip install 'smalti[report]'") from error
    environment = Environment(
        loader=PackageLoader("smalti.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    names = facts.names_of(runs)
    unread = {run.folder: list(run.unread.values()) for run in runs}
    drawn = charts(runs, names, lambda run, line: unread[run.folder].append(line))
    text = environment.get_template("page.html").render(
        style=style() + _text("page.css"),
        script=scripts(),
        charts_script=_text("charts.js"),
        viewer_script=_text("viewer.js"),
        plotly=plotly_library(),
        charts=embedded(drawn),
        runs=[_run(run, name, unread[run.folder]) for run, name in zip(runs, names, strict=True)],
        titles={rule.id: rule.title for rule in all_rules()},
        results=facts.results(runs),
        differences=facts.differences(runs),
    )
    write_whole(path, text)
    return path


@cache
def plotly_library() -> str:
    """The drawing library, gzip in base64; a page unpacks it.

    Raises:
        UserError: if plotly is not installed.
    """
    if find_spec("plotly") is None:
        raise UserError("the report needs plotly: pip install 'smalti[report]'")
    source = (resources.files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    return base64.b64encode(gzip.compress(source, 9, mtime=0)).decode()


def _run(run: Run, name: str, unread: list[str]) -> Mapping[str, Any]:
    """What the template shows of a run; ``unread`` are lines about files that cannot be read."""
    findings = findings_of(run, unread.append)
    ended, state = facts.status(run)
    album = viewer(run, facts.makes_pairs(run))
    return {
        "name": name,
        "ended": ended,
        "status": state,
        "facts": facts.facts(run),
        "measured": facts.measured(run),
        "at": run.evaluation.get("step"),
        "held_out": facts.held_out(run),
        "terms": terms(run.evaluation),
        "findings": findings,
        "warnings": facts.warnings(run, [finding.id for finding in findings]),
        "damaged": len(run.damaged),
        "unread": unread,
        "unmeasured": EVALUATION in run.unread,
        "unread_recipe": RECIPE in run.unread,
        "album": album,
        "album_data": embedded({name: album[name] for name in ("steps", "images")}),
        "environments": facts.environments(run),
        "recipe": run.recipe,
    }


def _text(name: str) -> str:
    return (resources.files("smalti.report") / name).read_text(encoding="utf-8")
