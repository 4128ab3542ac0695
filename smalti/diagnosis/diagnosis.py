"""A diagnosis: log records go in, findings come out, each once."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from smalti.diagnosis.facts import Facts
from smalti.diagnosis.finding import Finding
from smalti.diagnosis.history import History, View, numbers_of
from smalti.diagnosis.rule import Rule, Sighting
from smalti.diagnosis.rules import NOT_FINITE, RULES


class Diagnosis:
    """Watches a run by its log records; bounded memory, plain state.

    Args:
        recipe: resolved, or None.
        rules: to look by.
    """

    def __init__(self, recipe: Mapping[str, Any] | None = None, rules: Sequence[Rule] = RULES) -> None:
        self.facts, self.rules = Facts(recipe), tuple(rules)
        self.history = History()
        self.findings: list[Finding] = []
        self._bad: dict[str, list[int]] = {}  # key -> log steps in a row that looked bad, the step of the first
        self._well: dict[str, int] = {}  # key of a finding that stands -> log steps in a row that looked well
        self._open: set[str] = set()  # rules that may have a key in one of them
        self.failed: dict[str, str] = {}  # rule that raised, and is switched off -> why

    def take(self, record: Mapping[str, Any]) -> list[Finding]:
        """Looks at a line of ``metrics.jsonl``; what is new or over since the last one.

        Args:
            record: of a training step, a validation, or a skipped update; anything else is left alone.
        """
        if isinstance(record.get("skipped"), str):
            return self._skipped(int(record["step"]), record["skipped"])
        numbers = numbers_of(record)
        trained = any(name.startswith("train/") for name in numbers)
        if not trained and not any(name.startswith("val/") for name in numbers):
            return []
        self.history.add(numbers)
        changed: list[Finding] = []
        if trained:
            view = View(self.history, self.facts)
            for rule in self.rules:
                changed += self._judge(rule, view)
        return changed

    @property
    def standing(self) -> list[Finding]:
        """The findings that are not over."""
        return [finding for finding in self.findings if finding.over is None]

    def _judge(self, rule: Rule, view: View) -> list[Finding]:
        if rule.id in self.failed:
            return []
        try:
            sightings = list(rule.look(view))
        except Exception as error:  # a rule is never worth a run
            self.failed[rule.id] = f"{type(error).__name__}: {error}"
            return []
        if not sightings and rule.id not in self._open:
            return []
        self._open.add(rule.id)
        seen = {f"{rule.id}/{one.subject}": one for one in sightings}
        known = {key for key in (*self._bad, *self._well) if key.startswith(f"{rule.id}/")}
        new = [self._note(rule, key, one, view.step) for key, one in seen.items()]
        over = [self._relax(rule, key, view.step) for key in sorted(known - seen.keys())]
        return [finding for finding in (*new, *over) if finding is not None]

    def _note(self, rule: Rule, key: str, seen: Sighting, step: int) -> Finding | None:
        count, since = self._bad.get(key, [0, step])
        self._bad[key] = [count + 1, since]
        if key in self._well:
            self._well[key] = 0
            return None
        if count + 1 < rule.patience or step - since < rule.span:
            return None
        return self._say(rule, seen, step)

    def _relax(self, rule: Rule, key: str, step: int) -> Finding | None:
        self._bad.pop(key, None)
        if key not in self._well or rule.event:
            return None
        self._well[key] += 1
        if self._well[key] < max(2, -(-rule.patience // 2)):
            return None
        del self._well[key]
        finding = next(one for one in reversed(self.findings) if one.key == key)
        finding.over = step
        return finding

    def _say(self, rule: Rule, seen: Sighting, step: int) -> Finding:
        finding = Finding(
            id=rule.id,
            subject=seen.subject,
            step=step,
            evidence={name: value for name, value in seen.evidence.items() if not math.isnan(value)},
            cause=rule.cause,
            change=rule.change,
            note=seen.note,
        )
        self.findings.append(finding)
        self._well[finding.key] = 0
        return finding

    def _skipped(self, step: int, message: str) -> list[Finding]:
        subject = message.removesuffix(" is not finite")
        seen = Sighting(subject=subject)
        if f"{NOT_FINITE.id}/{subject}" in self._well:
            return []
        return [self._say(NOT_FINITE, seen, step)]

    # What travels with a checkpoint.

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "history": self.history.as_dict(),
            "findings": [finding.as_dict() for finding in self.findings],
            "bad": {key: list(value) for key, value in self._bad.items()},
            "well": dict(self._well),
            "failed": dict(self.failed),
        }

    def restore(self, values: Mapping[str, Any]) -> None:
        """Takes what ``as_dict`` gave."""
        self.history.restore(values["history"])
        self.findings = [Finding.of(finding) for finding in values["findings"]]
        self._bad = {key: list(value) for key, value in values["bad"].items()}
        self._well, self.failed = dict(values["well"]), dict(values["failed"])
        self._open = {key.partition("/")[0] for key in (*self._bad, *self._well)}
