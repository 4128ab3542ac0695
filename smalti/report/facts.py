"""What the head of a page says of a run: how far it came, on what, and what was measured at its end."""

from collections.abc import Mapping, Sequence
from typing import Any

from smalti.config import read_yaml
from smalti.report.run import EVALUATION, RECIPE, Run, is_number
from smalti.report.words import START, flatten, rows

_BESIDE = ("step", "training_images", "seconds", "model_step", "images")  # in an evaluation, but no measurement
_WORDS = {"smalti": "smalti", "python": "Python", "torch": "PyTorch", "numpy": "NumPy", "pillow": "Pillow"}


def recipe_of(run: Run) -> Mapping[str, Any]:
    """The recipe as values; empty if there is none, or it cannot be read."""
    found = read_yaml(run.recipe, str(run.folder / RECIPE)) if run.recipe else {}
    return found if isinstance(found, dict) else {}


def makes_pairs(run: Run) -> bool:
    """Whether its pictures show originals beside reconstructions, as far as the recipe tells."""
    model = recipe_of(run).get("model")
    return isinstance(model, dict) and (model.get("type") == "autoencoder" or "bottleneck" in model)


def status(run: Run) -> tuple[bool, str]:
    """Whether a run has ended, and that in words."""
    engine = recipe_of(run).get("engine")
    most = engine.get("max_steps") if isinstance(engine, dict) else None
    measured = run.evaluation.get("step")
    ended = bool(run.evaluation) and (not is_number(measured) or measured >= run.step)
    ended = ended or (EVALUATION in run.unread and is_number(most))  # it is written at the end
    if ended and (not is_number(most) or run.step >= most):
        return True, "finished"
    return False, f"not finished: {run.step:,} of {most:,} updates" if is_number(most) else "not finished"


def facts(run: Run) -> list[str]:
    """How much was trained, each in a few words."""
    found = [f"{run.step:,} generator updates", f"{run.images:,} images seen"]
    seconds = run.last("seconds")
    if seconds:
        speed = run.images / seconds
        found += [duration(seconds), f"{speed:,.0f} images / s" if speed >= 100 else f"{speed:.3g} images / s"]
    model_step = run.evaluation.get("model_step")
    if is_number(model_step) and model_step != run.evaluation.get("step"):
        found.append(f"model of step {model_step:,}")
    return found


def duration(seconds: float) -> str:
    """A time that people can read.

    >>> duration(4.24), duration(406.7), duration(3900), duration(200_000)
    ('4.2 s', '6 min 47 s', '1 h 05 min', '2 d 7 h')
    """
    whole = round(seconds)
    if seconds < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def measured(run: Run) -> list[tuple[str, str, str]]:
    """Names and texts of the measurements, and what each was before training, if that was measured."""
    values = {name: value for name, value in run.evaluation.items() if name not in _BESIDE}
    starts = {name: value for name, value in values.items() if name.removesuffix(START) in values.keys() - {name}}
    before = dict(rows({name.removesuffix(START): value for name, value in starts.items()}))
    now = rows({name: value for name, value in values.items() if name not in starts})
    return [(name, text, before.get(name, "")) for name, text in now]


def held_out(run: Run) -> str:
    """The images that were measured, in a few words; empty if that was not written."""
    names = run.evaluation.get("images")
    if not isinstance(names, list) or not names:
        return ""
    return str(names[0]) if len(names) == 1 else f"{len(names):,} images"


def warnings(run: Run, said: Sequence[str]) -> list[tuple[int, str, int]]:
    """What the log warned of: step of the first time, text, how often; but for what begins with one of ``said``."""
    found: dict[str, list[int]] = {}
    for record in run.records:
        for name in ("warning", "skipped"):
            text = record.get(name)
            if isinstance(text, str) and not any(text.startswith(f"{known}:") for known in said):
                found.setdefault(text if name == "warning" else f"skipped update: {text}", []).append(record["step"])
    return [(int(steps[0]), text, len(steps)) for text, steps in found.items()]


def environments(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """Where the run computed: from which step on, and a table; one entry unless it went on elsewhere."""
    found = []
    for entry in run.environment:
        table = [(_WORDS.get(name, name), _plain(value)) for name, value in entry.items() if name != "step"]
        title = f"From step {entry['step']:,.0f}" if len(run.environment) > 1 else ""
        found.append((title, table))
    return found


def differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Places in the recipes at which runs differ, and the value of each; "-" where it has none."""
    flat = [dict(flatten(recipe_of(run))) for run in runs]
    names = dict.fromkeys(name for values in flat for name in values)
    found = []
    for name in names:
        texts = [_plain(values[name]) if name in values else "-" for values in flat]
        if len(set(texts)) > 1:
            found.append((name.replace("/", "."), texts))
    return found


def results(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """The measurements of several runs: a name and a text for each run, "-" where it has none."""
    tables = [{name: text for name, text, _ in measured(run)} for run in runs]
    names = dict.fromkeys(name for table in tables for name in table)
    return [(name, [table.get(name, "-") for table in tables]) for name in names]


def names_of(runs: Sequence[Run]) -> list[str]:
    """What runs are called beside each other: their folders' names, with as much before them as tells them apart."""
    parts = [run.folder.resolve().parts for run in runs]
    found = [run.name for run in runs]
    depth = 1
    while len(set(found)) < len(found) and depth < max(map(len, parts)):
        depth += 1
        found = ["/".join(part[-depth:]) for part in parts]
    return found


def _plain(value: Any) -> str:
    return "true" if value is True else "false" if value is False else "null" if value is None else str(value)
