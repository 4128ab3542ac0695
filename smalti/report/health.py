"""What is wrong with a run, from its folder alone."""

import math

from smalti.config import read_yaml
from smalti.diagnosis import Finding, replay, with_written
from smalti.registry import UserError
from smalti.report.run import Run


def findings_of(run: Run) -> list[Finding]:
    """What the rules see in its log, and what was written into ``diagnosis.jsonl`` beside; in the order of steps.

    Raises:
        UserError: if ``diagnosis.jsonl`` is damaged.
    """
    try:
        recipe = read_yaml(run.recipe, str(run.folder / "recipe.yaml")) if run.recipe else None
    except UserError:
        recipe = None  # a page is still worth having
    records = [record for record in run.records if math.isfinite(record["step"])]
    found = replay(records, recipe if isinstance(recipe, dict) else None)
    return with_written(found.findings, run.folder)
