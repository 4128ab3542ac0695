"""Findings come once, end with patience, survive a resumption; a rule that fails is switched off."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from smalti.diagnosis import FILE, Diagnosis, Finding, Rule, Sighting, all_rules, replay, with_written
from smalti.diagnosis.history import View
from tests.diagnosis.runs import RECIPE, D, log_of

DEAF = {f"{D}critic/slope_max": lambda step: 0.0 if 60 <= step < 130 else 1.0}


def test_finding_is_said_once_and_then_said_to_be_over() -> None:
    diagnosis = Diagnosis(RECIPE)
    told = [(record["step"], finding.id, finding.over) for record in log_of(DEAF) for finding in diagnosis.take(record)]
    assert told == [(100, "discriminator-dead", None), (150, "discriminator-dead", 150)]
    assert diagnosis.standing == []
    assert diagnosis.findings[0].step == 100


def test_flickering_neither_raises_nor_ends_a_finding() -> None:
    flicker = {f"{D}critic/slope_max": lambda step: float(step % 40 == 0)}
    assert replay(log_of(flicker), RECIPE).findings == []
    once = {f"{D}critic/slope_max": lambda step: float(step == 150)}
    assert [finding.over for finding in replay(log_of(once), RECIPE).findings] == [None]


@pytest.mark.parametrize("stop", [3, 8, 11, 15])
def test_state_that_was_saved_and_put_back_goes_on_as_if_nothing_had_been(stop: int) -> None:
    records = list(log_of(DEAF))
    straight, first, second = Diagnosis(RECIPE), Diagnosis(RECIPE), Diagnosis(RECIPE)
    for record in records:
        straight.take(record)
    for record in records[:stop]:
        first.take(record)
    second.restore(json.loads(json.dumps(first.as_dict())))
    for record in records[stop:]:
        second.take(record)
    assert second.as_dict() == straight.as_dict()
    assert straight.findings


def test_state_is_bounded_however_long_the_run() -> None:
    sizes = []
    for steps in (1000, 4000):
        diagnosis = replay(log_of(steps=steps), RECIPE)
        sizes.append(sum(map(len, (diagnosis.history.recent, diagnosis.history.first, diagnosis.history.low))))
    assert sizes[0] == sizes[1]


def test_a_rule_that_raises_is_named_and_not_asked_again() -> None:
    asked: list[int] = []

    def look(view: View) -> Iterator[Sighting]:
        asked.append(view.step)
        yield Sighting(evidence={"one": 1.0})
        raise ZeroDivisionError("by hand")

    broken = Rule(id="broken", title="", look=look, threshold="", cause="", change="")
    diagnosis = Diagnosis(rules=[broken, *all_rules()])
    for record in log_of():
        diagnosis.take(record)
    assert diagnosis.failed == {"broken": "ZeroDivisionError: by hand"}
    assert asked == [1]
    assert diagnosis.findings == []


def test_skipped_updates_are_named_by_what_was_not_finite() -> None:
    lines = [{"step": step, "skipped": "generator: term 'l1' is not finite"} for step in (4, 5, 9)]
    findings = replay(lines).findings
    assert [(finding.id, finding.subject, finding.step) for finding in findings] == [
        ("not-finite", "generator: term 'l1'", 4)
    ]


def test_numbers_that_are_missing_or_odd_are_no_finding() -> None:
    odd = [{"step": 1}, {"step": 2, "warning": "x"}, {"step": 3, "train/generator/fit": None}]
    diagnosis = replay([*odd, {"step": 4, "val/psnr": 1.0}])
    assert diagnosis.findings == []
    assert diagnosis.failed == {}


def test_what_was_written_is_read_again_and_joins_what_the_log_still_tells(tmp_path: Path) -> None:
    diagnosis = Diagnosis(RECIPE)
    changed = [finding.line_of_file() for record in log_of(DEAF) for finding in diagnosis.take(record)]
    lost = Finding(id="plateau", subject="", step=30, evidence={"best": 1.0})
    lines = [json.dumps(line) for line in (lost.line_of_file(), *changed)]
    (tmp_path / FILE).write_text("\n".join(lines) + '\n{"id": "cut sho')
    assert [finding.id for finding in with_written([], tmp_path)] == ["plateau", "discriminator-dead"]
    assert [finding.over for finding in with_written([], tmp_path)] == [None, 150]
    assert len(with_written(diagnosis.findings, tmp_path)) == 2
    for wrong in ('{"id": 3}', "[]", '{"id": "a", "subject": "", "step": "x"}', '{"id": "a", "subject": 1, "step": 2}'):
        (tmp_path / FILE).write_text("\n".join((lines[0], wrong, lines[1])) + "\n")
        said: list[str] = []
        assert [finding.id for finding in with_written([], tmp_path, said.append)] == ["plateau", "discriminator-dead"]
        assert said == ["diagnosis.jsonl: 1 of 3 lines cannot be read; they are left out"]
