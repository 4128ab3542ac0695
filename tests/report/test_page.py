"""The page of a run in a browser: hover, zoom, scales, terms, slider, colours, a phone; silent, and asking nobody."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from smalti.data.grid import save_grid
from smalti.report import read_run, report, write_page
from tests.browser import PHONE, Opened
from tests.report.synthetic import write_run

Open = Callable[..., Opened]
NAME = "</script><b>run</b>"


def dressed(folder: Path, **options: Any) -> Path:
    """A run with pictures of two pairs at two steps, a finding and a place."""
    run = write_run(folder, **options)
    for path in (run / "samples").iterdir():
        path.unlink()
    given = torch.linspace(-1, 1, 2 * 3 * 32 * 48).reshape(2, 3, 32, 48)
    for step, shift in ((0, 0.5), (2000, 0.25)):
        pairs = [image for pair in zip(given, given - shift, strict=True) for image in pair]
        save_grid(run / "samples" / f"{step:08d}.png", pairs, columns=4, pairs=True)
    finding = {"id": "codebook-collapse", "subject": NAME, "step": 700, "since": 700, "over": None}
    told = {
        "cause": "few codes are left",
        "change": f"model.bottleneck.{'codebook.' * 9}quantizer.revival: {{patience: 100}}",
        "evidence": {"usage": 0.01},
    }
    (run / "diagnosis.jsonl").write_text(json.dumps(finding | told) + "\n")
    (run / "environment.json").write_text(json.dumps([{"step": 0, "torch": "2.13.0", "device": "cpu"}]))
    return run


@pytest.fixture(name="written", scope="module")
def _written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(dressed(tmp_path_factory.mktemp("runs") / "mine"))[1]


def opened(open_page: Open, path: Path, *arguments: Any) -> Opened:
    found = open_page(path, *arguments)
    found.page.wait_for_selector("html[data-drawn=true]", timeout=60_000)
    return found


def panel(found: Opened, title: str) -> Any:
    return found.page.locator("article.panel").filter(has=found.page.get_by_role("heading", name=title, exact=True))


def axis(plot: Any, name: str) -> Any:
    """An axis of a chart as it is drawn: its type and range."""
    return plot.evaluate(f"plot => [plot._fullLayout.{name}.type, [...plot._fullLayout.{name}.range]]")


def test_a_reader_sees_what_the_run_was(written: Path, open_page: Open) -> None:
    found = opened(open_page, written)
    text = found.page.locator("body").inner_text()
    for shown in ("mine", "finished", "2,000 generator updates", "31.23", "Few codes are left", NAME, "2.13.0"):
        assert shown in text
    assert found.page.locator("b b, h3 b, h1 b").count() == 0
    assert found.page.locator("nav a:visible").all_text_contents() == [
        *("Diagnosis", "Result", "Pictures", "Curves", "Codebook", "Environment", "Recipe")
    ]
    assert (found.complaints, found.requests) == ([], [])


def test_hover_tells_the_values_of_a_step(written: Path, open_page: Open) -> None:
    found = opened(open_page, written)
    plot = panel(found, "PSNR").locator(".plot")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    found.page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.5 * box["height"])
    label = plot.locator(".hoverlayer .legendtext, .hoverlayer .hovertext").first
    label.wait_for()
    assert "30.4" in (plot.locator(".hoverlayer").text_content() or "")  # 31 - 12 exp(-3) at step 1200
    assert found.complaints == []


def test_dragging_zooms_all_charts_and_a_button_comes_back(written: Path, open_page: Open) -> None:
    found = opened(open_page, written)
    plot, other = (panel(found, title).locator(".plot") for title in ("PSNR", "Speed"))
    before = axis(plot, "xaxis")
    plot.scroll_into_view_if_needed()
    box = plot.locator(".nsewdrag").bounding_box()
    middle = box["y"] + box["height"] / 2
    found.page.mouse.move(box["x"] + 0.3 * box["width"], middle)
    found.page.mouse.down()
    found.page.mouse.move(box["x"] + 0.6 * box["width"], middle, steps=4)
    found.page.mouse.up()
    kind, (low, high) = axis(plot, "xaxis")
    assert kind == "linear"
    assert low == pytest.approx(0.3 * before[1][1], rel=0.05)
    assert high == pytest.approx(0.6 * before[1][1], rel=0.05)
    assert axis(other, "xaxis")[1] == pytest.approx([low, high])
    found.page.get_by_role("button", name="Reset zoom").click()
    assert axis(plot, "xaxis") == axis(other, "xaxis") == before
    assert found.complaints == []


def test_scales_axes_and_smoothing_are_switched(written: Path, open_page: Open) -> None:
    found = opened(open_page, written)
    card = panel(found, "Generator terms")
    assert axis(card.locator(".plot"), "yaxis")[0] == "log"
    card.locator("button.log").click()
    assert axis(card.locator(".plot"), "yaxis")[0] == "linear"
    assert card.locator("button.log").get_attribute("aria-pressed") == "false"
    plot = panel(found, "PSNR").locator(".plot")
    last = "plot => plot._fullData.at(-1).x.at(-1)"
    for name, value in (("images", 32_000), ("seconds", 40), ("updates", 2000)):
        found.page.get_by_role("button", name=name, exact=True).click()
        assert plot.evaluate(last) == value
    sharp = plot.evaluate("plot => [...plot._fullData[0].y]")
    found.page.locator(".smoothing input").fill("0.8")
    raw, smooth = plot.evaluate("plot => plot._fullData.map(line => [...line.y])")
    assert raw == sharp
    assert smooth[0] == pytest.approx(raw[0])
    assert smooth[-1] < raw[-1]  # values rise, and the mean lags
    assert found.complaints == []


def test_terms_are_switched_off_and_on_and_seen_alone(written: Path, open_page: Open) -> None:
    found = opened(open_page, written)
    card = panel(found, "Generator terms")
    shown = "plot => plot._fullData.filter(line => line.visible === true).map(line => line.name)"
    names = ["total", "pixel", "commitment", "adversarial"]
    assert card.locator(".chip").all_text_contents() == names
    card.get_by_role("button", name="pixel").click()
    assert card.locator(".plot").evaluate(shown) == ["total", "commitment", "adversarial"]
    assert card.get_by_role("button", name="pixel").get_attribute("aria-pressed") == "false"
    card.get_by_role("button", name="pixel").click(delay=20)
    assert card.locator(".plot").evaluate(shown) == names
    card.get_by_role("button", name="commitment").dblclick()
    assert card.locator(".plot").evaluate(shown) == ["commitment"]
    assert found.complaints == []


def test_pictures_are_uncovered_compared_and_followed_through_training(written: Path, open_page: Open) -> None:
    found = opened(open_page, written)
    page = found.page
    pair, slider = page.locator(".viewer .pair").first, page.locator(".viewer .cut").first
    pair.scroll_into_view_if_needed()
    box = pair.bounding_box()
    page.mouse.click(box["x"] + 0.25 * box["width"], box["y"] + box["height"] / 2)
    assert int(slider.input_value()) == pytest.approx(25, abs=2)
    cut = pair.locator("img").nth(1).evaluate("image => getComputedStyle(image).clipPath")
    assert f"{100 - int(slider.input_value())}%" in cut
    made = pair.locator("img").nth(0).get_attribute("src")
    course = page.get_by_label("Course of training")
    course.fill("0")
    assert pair.locator("img").nth(0).get_attribute("src") != made
    assert "after 0 updates" in page.locator(".course output").inner_text()
    page.get_by_role("button", name="Difference").click()
    # 0.5 of [-1, 1] is 64 of 255 levels, four times as bright
    assert pair.locator("img").nth(1).evaluate("image => getComputedStyle(image).mixBlendMode") == "difference"
    assert pair.locator(".stack").evaluate("stack => getComputedStyle(stack).filter") == "brightness(4)"
    page.get_by_role("button", name="Reconstruction").click()
    assert not pair.locator("img").nth(1).is_visible()
    assert found.complaints == []


def test_colours_follow_the_system_and_the_switch(written: Path, open_page: Open) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    ink = "document.querySelector('.plot').layout.font.color"
    light, dark = opened(open_page, written), opened(open_page, written, PHONE, True)
    colours = light.page.evaluate(paper), light.page.evaluate(ink)
    assert colours != (dark.page.evaluate(paper), dark.page.evaluate(ink))
    light.page.get_by_role("button", name="Switch to dark colours").click()
    assert (light.page.evaluate(paper), light.page.evaluate(ink)) == (
        dark.page.evaluate(paper),
        dark.page.evaluate(ink),
    )
    light.page.reload()
    light.page.wait_for_selector("html[data-drawn=true]", timeout=60_000)
    assert light.page.evaluate(paper) == dark.page.evaluate(paper)  # it is remembered
    light.page.get_by_role("button", name="Switch to light colours").click()
    assert (light.page.evaluate(paper), light.page.evaluate(ink)) == colours
    assert light.complaints == dark.complaints == []


def test_it_fits_a_phone(written: Path, open_page: Open) -> None:
    found = opened(open_page, written, PHONE)
    assert found.overflow() == 0
    widths = found.page.evaluate(
        "[...document.querySelectorAll('.panel, .viewer, .plot .main-svg')].map(e => e.getBoundingClientRect().right)"
    )
    assert max(widths) <= PHONE[0]
    assert found.complaints == []


def test_several_runs_lie_over_each_other(tmp_path: Path, open_page: Open) -> None:
    runs = [
        read_run(dressed(tmp_path / name, steps=steps)) for name, steps in (("a", 2000), (NAME.replace("/", "!"), 1000))
    ]
    (runs[1].folder / "recipe.yaml").write_text("model:\n  type: other\n")
    found = opened(open_page, write_page([read_run(run.folder) for run in runs], tmp_path / "page.html"))
    page = found.page
    shown = "plot => plot._fullData.filter(line => line.visible === true).map(line => line.name)"
    plot = panel(found, "Generator terms: pixel").locator(".plot")
    assert plot.evaluate(shown) == ["a", runs[1].name]
    page.locator(".runs .chip").first.click()
    assert plot.evaluate(shown) == [runs[1].name]
    assert page.locator(".results thead th").all_inner_texts()[1:] == ["a", runs[1].name]
    assert page.locator("tr", has=page.get_by_text("model.type")).locator("td").all_inner_texts() == [
        "autoencoder",
        "other",
    ]
    assert page.locator("thead b").count() == 0
    assert (found.complaints, found.requests, found.overflow()) == ([], [], 0)


def test_pages_of_poor_runs_open(tmp_path: Path, open_page: Open) -> None:
    """One log line, no recipe, no pictures, no measurement, no seconds."""
    run = tmp_path / "poor"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"step": 1, "train/generator/total": 0.5}\n{"step": 2, "warning": "<i>"}\nx\n')
    (run / "samples").mkdir()
    (run / "samples" / "odd.png").write_bytes(b"")
    found = opened(open_page, write_page([read_run(run)], run / "page.html"), PHONE)
    text = found.page.locator("body").inner_text()
    for shown in (
        "not finished",
        "Nothing was measured yet",
        "No pictures",
        "1 line of metrics.jsonl",
        "<i>",
        "no recipe",
    ):
        assert shown in text
    assert (found.complaints, found.requests, found.overflow()) == ([], [], 0)


def test_a_level_line_lies_in_the_middle_of_its_own_size(tmp_path: Path, open_page: Open) -> None:
    run = tmp_path / "level"
    run.mkdir()
    lines = [{"step": step, "train/generator/learning_rate": 0.004} for step in range(1, 9)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = opened(open_page, write_page([read_run(run)], run / "page.html"))
    plot = panel(found, "Learning rate").locator(".plot")
    assert axis(plot, "yaxis")[1] == pytest.approx([0.002, 0.006])
    found.page.get_by_role("button", name="Reset zoom").click()
    assert axis(plot, "yaxis")[1] == pytest.approx([0.002, 0.006])
