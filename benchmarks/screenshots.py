"""Pictures of the report page and of the playground for the documentation, taken by a headless Chromium.

    python -m benchmarks.screenshots runs/quickstart runs/b --out docs

The first run is shown alone on a laptop, on a phone and in dark colours; all of them together on one page; and the
playground of all where gradio is installed. ``SMALTI_CHROMIUM`` names a browser.
"""

import argparse
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

from smalti.report import read_run, write_page

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
        pages(chromium, options.runs, options.out, Path(folder))
        if options.picture and find_spec("gradio"):
            playground(chromium, options.runs, options.picture, options.out)
        chromium.close()


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
