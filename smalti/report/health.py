"""What is wrong with a run, from its folder alone."""

import math
from collections.abc import Callable

from smalti.diagnosis import Finding, replay, with_written
from smalti.report.facts import recipe_of
from smalti.report.run import Run


def findings_of(run: Run, say: Callable[[str], None] = lambda line: None) -> list[Finding]:
    """What the rules see in its log, and what was written into ``diagnosis.jsonl`` beside; in the order of steps.

    Args:
        run: that is looked at.
        say: told in one line what of ``diagnosis.jsonl`` cannot be read and is left out.
    """
    recipe = recipe_of(run)
    records = [record for record in run.records if math.isfinite(record["step"])]
    found = replay(records, recipe or None)
    return with_written(found.findings, run.folder, say)
