"""Pictures of the terminal, the report page and the playground for the documentation, taken by a headless Chromium.

    python -m benchmarks.screenshots runs/quickstart runs/b --out docs

The first run is shown on terminals of 80, 120 and 200 columns, and its page alone on a laptop, on a phone and in dark
colours; all of them together on one page; and the playground of all where gradio is installed.
``SMALTI_CHROMIUM`` names a browser.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME

from smalti.engine._terminal import Terminal
from smalti.engine.watcher import speed
from smalti.report import read_run, write_page

COLUMNS = (80, 120, 200)
PAGE = """<html><head><meta charset="utf-8"></head><body style="background: {background}; margin: 0">
<pre style="color: {foreground}; background: {background}; display: inline-block; margin: 0; padding: 14px;
font: 13px/1.35 'DejaVu Sans Mono', Menlo, Consolas, monospace">{code}</pre></body></html>"""
LAPTOP, PHONE = (1280, 1180), (390, 844)
COLOURS = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--picture", type=Path, help="an image for the playground")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    browser = os.environ.get("SMALTI_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        terminals(chromium, options.runs[0], options.out, Path(folder))
        pages(chromium, options.runs, options.out, Path(folder))
        if options.picture and find_spec("gradio"):
            playground(chromium, options.runs, options.picture, options.out)
        chromium.close()


def terminals(chromium: Any, run: Path, out: Path, folder: Path) -> None:
    """What a terminal shows at three quarters of a run."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    last = records[-1]["step"]
    for width in COLUMNS:
        console = Console(width=width, height=40, record=True, file=io.StringIO(), force_terminal=True)
        shown = Terminal(last, console)
        for record in records:
            if record["step"] <= 0.75 * last:
                shown.advance(record["step"])
                shown.show(record, speed(record))
        console.print("$ smalti train quickstart", style="dim")
        console.print(shown.picture())
        page = folder / f"{width}.html"
        page.write_text(console.export_html(theme=SVG_EXPORT_THEME, inline_styles=True, code_format=PAGE), "utf-8")
        context = chromium.new_context(device_scale_factor=1.5, offline=True)
        opened = context.new_page()
        opened.goto(page.as_uri())
        taken(opened.locator("pre"), out / f"terminal-{width}.png")
        context.close()


def pages(chromium: Any, runs: Sequence[Path], out: Path, folder: Path) -> None:
    one = write_page([read_run(runs[0])], folder / "one.html")
    for name, size, colours, at in (
        ("report-laptop", LAPTOP, "light", None),
        ("report-curves", LAPTOP, "light", "#curves"),
        ("report-dark", LAPTOP, "dark", "#curves"),
        ("report-phone", PHONE, "light", None),
    ):
        page = opened(chromium, one, size, colours)
        if at:
            page.evaluate(f"document.querySelector('{at}').scrollIntoView()")
            page.wait_for_timeout(400)
        taken(page, out / f"{name}.png")
    if len(runs) > 1:
        several = write_page([read_run(run) for run in runs], folder / "several.html")
        taken(opened(chromium, several, LAPTOP, "light"), out / "report-runs.png")


def opened(chromium: Any, path: Path, size: tuple[int, int], colours: str) -> Any:
    phone = size == PHONE
    context = chromium.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=colours,
        offline=True,
        is_mobile=phone,
        has_touch=phone,
        device_scale_factor=2 if phone else 1,
    )
    page = context.new_page()
    page.goto(path.resolve().as_uri())
    page.wait_for_selector("html[data-drawn=true]", timeout=120_000)
    page.wait_for_timeout(400)
    return page


def playground(chromium: Any, models: Sequence[Path], picture: Path, out: Path) -> None:
    command = [sys.executable, "-u", "-m", "smalti", "app", *map(str, models)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().removeprefix("playground: ").strip()
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(120_000)
        page.goto(address)
        page.locator("input[type=file]").first.set_input_files(picture)
        page.get_by_text("dB PSNR").first.wait_for()
        page.wait_for_timeout(3000)
        taken(page, out / "app-reconstruct.png")
        page.get_by_role("tab", name="Tokens").click()
        page.locator("input[type=file]").nth(1).set_input_files(picture)
        chart = page.locator(".pixels img:visible")
        chart.wait_for()
        for share, letter in ((0.3, "A"), (0.6, "B")):
            box = chart.bounding_box()
            chart.click(position={"x": share * box["width"], "y": share * box["height"]})
            page.get_by_text(f"{letter}: row").wait_for()
        page.get_by_role("button", name="Mean from A to B").click()
        page.wait_for_timeout(4000)
        taken(page, out / "app-tokens.png")
        process.terminate()
    with suppress(OSError):
        page.close()


def taken(page: Any, path: Path) -> None:
    page.screenshot(path=path)
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    print(f"{path}  {path.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
