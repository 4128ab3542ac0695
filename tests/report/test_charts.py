"""What is drawn of a run: panels by what was logged, lines over three axes, damage left out and told."""

import json
import random
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from smalti.data.grid import save_grid
from smalti.registry import UserError
from smalti.report import read_run
from smalti.report.charts import charts, thinned
from smalti.report.facts import differences, environments, measured, names_of, results, status, warnings
from smalti.report.health import findings_of
from smalti.report.pictures import viewer
from tests.report.synthetic import write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


def panel(found: dict, title: str) -> dict:
    return next(panel for panel in found["panels"] if panel["title"] == title)


def test_a_line_has_its_values_at_its_steps_images_and_seconds(run: Path) -> None:
    found = charts([read_run(run)], ["run"])
    x = found["runs"][0]["x"]
    (psnr,) = panel(found, "PSNR")["lines"]
    assert [x["step"][index] for index in psnr["at"]] == [400, 800, 1200, 1600, 2000]
    assert [x["images"][index] for index in psnr["at"]] == [16 * step for step in (400, 800, 1200, 1600, 2000)]
    assert [x["seconds"][index] for index in psnr["at"]] == [8.0, 16.0, 24.0, 32.0, 40.0]
    _, values = read_run(run).series("val/psnr")
    assert psnr["y"] == pytest.approx(values, rel=1e-5)
    assert found["runs"][0]["starts"] == {"adversarial": 1000}


def test_several_runs_share_a_panel_for_each_quantity(run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", steps=1000, every=50)
    found = charts([read_run(run), read_run(other)], ["run", "other"])
    for title in ("PSNR", "Generator terms: pixel", "Generator terms: adversarial", "Speed"):
        lines = panel(found, title)["lines"]
        assert {line["run"] for line in lines} == {0, 1}
        assert {line["colour"] for line in lines} == {0, 1}
    assert [len(head["x"]["step"]) for head in found["runs"]] == [20, 20]


def test_thinning_keeps_extremes_and_both_ends() -> None:
    drawn = random.Random(0)
    values = [drawn.random() for _ in range(50_000)]
    values[31_234], values[777] = 9.0, -9.0
    kept = thinned(values)
    assert len(kept) <= 1000
    assert kept == sorted(set(kept))
    assert {0, 777, 31_234, 49_999} <= set(kept)


def test_damaged_lines_are_left_out_and_told(run: Path) -> None:
    metrics = run / "metrics.jsonl"
    lines = metrics.read_bytes().splitlines(keepends=True)
    lines[2:2] = [b"\x00\xff\n", b"[1]\n", b'{"images": 3}\n', b'{"step": NaN}\n', b'{"step": 1e999}\n']
    metrics.write_bytes(b"".join(lines) + b'{"step": 21')
    found = read_run(run)
    assert found.damaged == (3, 4, 5, 6, 7)
    assert len(found.records) == 20


def test_numbers_that_are_not_finite_are_gaps(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2100, "val/psnr": NaN, "images_per_second": Infinity}\n{"step": 2200, "val/psnr": null}\n')
    assert read_run(run).series("val/psnr")[0][-1] == 2000
    assert "NaN" not in json.dumps(charts([read_run(run)], ["run"]))


def write_counts(run: Path, counts: torch.Tensor) -> None:
    (run / "model").mkdir()
    key = "bottleneck.branches.code.quantizer.window.counts"
    save_file({key: counts, "other.window.counts": counts + 1}, run / "model" / "model.safetensors")


def test_frequencies_of_codes_come_from_the_saved_model(run: Path) -> None:
    title = "How often each code is chosen, the most frequent first"
    assert not any(panel["title"] == title for panel in charts([read_run(run)], ["run"])["panels"])
    write_counts(run, torch.tensor([[0, 5, 1, 0], [0, 1, 1, 2]]))
    (line,) = panel(charts([read_run(run)], ["run"]), title)["lines"]
    assert (line["name"], line["x"], line["y"]) == ("code", [1, 2, 3], [60.0, 20.0, 20.0])
    (run / "model" / "model.safetensors").write_bytes(b"half")
    assert not any(panel["title"] == title for panel in charts([read_run(run)], ["run"])["panels"])


def test_sheets_are_cut_into_pairs_and_each_picture_is_kept_once(run: Path) -> None:
    for path in (run / "samples").iterdir():
        path.unlink()
    given = torch.linspace(-1, 1, 3 * 3 * 16 * 24).reshape(3, 3, 16, 24)
    for step, shift in ((0, 0.5), (10, 0.1)):
        made = (given - shift).clamp(-1, 1)
        pairs = [image for pair in zip(given, made, strict=True) for image in pair]
        save_grid(run / "samples" / f"{step:08d}.png", pairs, columns=4, pairs=True)
    found = viewer(read_run(run), pairs=False)
    assert [step["label"] for step in found["steps"]] == ["0", "10"]
    first, last = (step["pairs"] for step in found["steps"])
    assert [pair[0] for pair in first] == [pair[0] for pair in last]
    assert len(found["images"]) == 9
    assert found["exact"]
    # an older run did not say how its sheets are divided: they are cut the same way
    for path in (run / "samples").iterdir():
        with Image.open(path) as opened:
            bare = opened.convert("RGB")
        bare.save(path)
    assert viewer(read_run(run), pairs=True) == found
    assert all("sheet" in step for step in viewer(read_run(run), pairs=False)["steps"])
    (run / "samples" / "00000010.png").write_bytes(b"half a picture")
    assert viewer(read_run(run), pairs=True)["unread"] == ["00000010.png"]


def test_findings_are_told_once_with_the_newest_word(run: Path) -> None:
    assert findings_of(read_run(run)) == []
    base = {"id": "plateau", "subject": "", "cause": "c", "change": "d", "evidence": {"best": 0.5}, "link": "x"}
    lines = [
        {**base, "step": 300, "since": 300, "over": None},
        {**base, "id": "collapse", "subject": "code", "step": 100, "since": 100, "over": None},
        {**base, "step": 900, "since": 300, "over": 900, "unknown": 1},
    ]
    text = "\n".join(map(json.dumps, lines))
    (run / "diagnosis.jsonl").write_text(f'{text}\n{{"id": "half')
    found = findings_of(read_run(run))
    assert [(finding.id, finding.step, finding.over) for finding in found] == [
        ("collapse", 100, None),
        ("plateau", 300, 900),
    ]


def test_warnings_are_counted_and_those_of_findings_left_to_them(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        for step, text in ((2000, "plateau: nothing"), (2001, "beware"), (2005, "beware")):
            file.write(json.dumps({"step": step, "warning": text}) + "\n")
        file.write(json.dumps({"step": 2006, "skipped": "generator: l1 is not finite"}) + "\n")
    expected = [(2001, "beware", 2), (2006, "skipped update: generator: l1 is not finite", 1)]
    assert warnings(read_run(run), ["plateau"]) == expected


def test_a_run_that_goes_on_says_how_far_it_is(run: Path) -> None:
    assert status(read_run(run)) == (True, "finished")
    (run / "recipe.yaml").write_text("engine: {max_steps: 4000}")
    assert status(read_run(run)) == (False, "not finished: 2,000 of 4,000 updates")
    (run / "evaluation.json").unlink()
    (run / "recipe.yaml").unlink()
    assert status(read_run(run)) == (False, "not finished")


def test_a_measurement_before_training_stands_under_that_after_it(run: Path) -> None:
    (run / "evaluation.json").write_text(json.dumps({"psnr_start": 9.0, "psnr": 31.0, "x_start": 1.0}))
    assert measured(read_run(run)) == [("PSNR", "31.00 dB", "9.00 dB"), ("x start", "1", "")]


def test_recipes_are_compared_place_by_place(run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "deeper" / "run")
    (run / "recipe.yaml").write_text("optim: {generator: {lr: 0.1}}\nseed: 1\n")
    (other / "recipe.yaml").write_text("optim: {generator: {lr: 0.2, clip: true}}\nseed: 1\n")
    runs = [read_run(run), read_run(other)]
    assert differences(runs) == [
        ("optim.generator.lr", ["0.1", "0.2"]),
        ("optim.generator.clip", ["-", "true"]),
    ]
    assert ("PSNR", ["31.23 dB", "31.23 dB"]) in results(runs)
    assert names_of(runs)[1] == "deeper/run"
    assert len(set(names_of(runs))) == 2


def test_where_a_run_computed_is_told_from_step_to_step(run: Path) -> None:
    assert environments(read_run(run)) == []
    (run / "environment.json").write_text('[{"step": 0, "torch": "2"}, {"step": 700, "torch": "3"}, 5]')
    assert environments(read_run(run)) == [
        ("From step 0", [("PyTorch", "2")]),
        ("From step 700", [("PyTorch", "3")]),
    ]
    (run / "environment.json").write_text("{")
    assert environments(read_run(run)) == []


def test_a_log_without_a_readable_line_is_refused(run: Path) -> None:
    (run / "metrics.jsonl").write_bytes(b'{"a": "\xe9"}\n\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl"):
        read_run(run)
