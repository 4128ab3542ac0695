"""One page that shows a run: measurements, pictures, curves, recipe. It opens from the disk, without a server."""

import os
from pathlib import Path

from smalti.registry import UserError
from smalti.report.health import findings_of
from smalti.report.run import Run
from smalti.report.words import rows, terms
from smalti.writing import write_whole

_STRIP = 5  # pictures of the course of training besides the last one


def write_page(run: Run, curves: Path, path: Path) -> Path:
    """Writes ``path``, an HTML page whose pictures are named relative to it.

    Raises:
        UserError: if jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise UserError("the report needs jinja2: pip install 'smalti[report]'") from error
    environment = Environment(loader=PackageLoader("smalti.report", "."), autoescape=True, undefined=StrictUndefined)
    last = run.records[-1] if run.records else {}
    text = environment.get_template("page.html").render(
        name=run.folder.resolve().name,
        step=last.get("step", 0),
        images=last.get("images", 0),
        findings=findings_of(run),
        rows=rows(run.evaluation),
        terms=terms(run.evaluation),
        curves=_relative(curves, path),
        samples=[(sample.stem, _relative(sample, path)) for sample in course(run.samples)],
        recipe=run.recipe,
    )
    write_whole(path, text)
    return path


def course(samples: tuple[Path, ...]) -> list[Path]:
    """At most six pictures, evenly over the run, the last one first.

    >>> [path.stem for path in course(tuple(Path(f"{step}.png") for step in range(11)))]
    ['10', '0', '2', '4', '6', '8']
    """
    if len(samples) <= _STRIP + 1:
        return [*samples[-1:], *samples[:-1]]
    return [samples[-1], *(samples[round(i * (len(samples) - 1) / _STRIP)] for i in range(_STRIP))]


def _relative(target: Path, page: Path) -> str:
    return Path(os.path.relpath(target, page.parent)).as_posix()
