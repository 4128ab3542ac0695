"""Diagnosis: rules over logged numbers that say what is wrong with a run. They see a run as its folder tells it.

>>> from smalti.diagnosis import replay
>>> healthy = {f"train/generator/{name}": 1.0 for name in ("total", "fit", "fit_max")}
>>> replay({"step": step, **healthy} for step in range(0, 60, 10)).findings
[]
"""

from smalti.diagnosis.diagnosis import Diagnosis
from smalti.diagnosis.finding import PAGE, Finding
from smalti.diagnosis.replay import FILE, replay, with_written
from smalti.diagnosis.rule import Rule, Sighting
from smalti.diagnosis.rules import RULES, all_rules

__all__ = ["FILE", "PAGE", "RULES", "Diagnosis", "Finding", "Rule", "Sighting", "all_rules", "replay", "with_written"]
