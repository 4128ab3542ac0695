"""``smalti app`` in a browser: served to this machine only, silent, and every part of it works."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import smalti
from smalti.app import server
from tests.browser import PHONE
from tests.cli.conftest import Verb, smalti_cli  # noqa: F401

ROOT = Path(__file__).parents[2]
OWN_NOISE = "Method not implemented."  # what gradio's own scripts say of themselves


def test_a_missing_package_names_the_extra(
    smalti_cli: Verb,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    done = smalti_cli("app", "nowhere")
    assert done.exit_code == 2
    assert "smalti[app]" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "a"], "a is named twice"),
        (["a", "--port", "0"], "'--port': Input should be greater"),
        (["a", "--longest", "8"], "'--longest': Input should be greater"),
        (["nowhere"], "nowhere"),
    ],
)
def test_wrong_calls_are_told(
    smalti_cli: Verb,  # noqa: F811
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "find_spec", lambda name: name)
    done = smalti_cli("app", *words)
    assert done.exit_code == 2
    assert message in re.sub(r"\s+", " ", done.stderr)


@pytest.fixture(name="address", scope="module")
def _address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The playground of two tokenizers and a generator, untrained, in a process of its own."""
    if find_spec("gradio") is None:
        pytest.skip("no gradio: pip install 'smalti[app]'")
    folder = tmp_path_factory.mktemp("models")
    for name in ("tiny-fqgan-dual-f16", "tiny-vae-kl-f8", "tiny-biggan-32"):
        smalti.build(name).save_pretrained(folder / name)
    names = [path.name for path in sorted(folder.iterdir())]
    command = [sys.executable, "-m", "smalti", "app", *names, "--device", "cpu", "--longest", "64"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "TMPDIR": str(folder)}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield line.removeprefix("playground: ").strip()
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert list(folder.glob("smalti-app-*")) == []  # nothing is kept


@pytest.fixture(name="opened")
def _opened(browser: Any, address: str) -> Iterator[tuple[Any, list[str]]]:
    """The page, and what was wrong: words on the console, requests to others."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page, wrong = context.new_page(), []
    page.on("console", lambda said: said.type in {"error", "warning"} and wrong.append(said.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: asked.url.startswith((address, "data:", "blob:")) or wrong.append(asked.url))
    page.set_default_timeout(60_000)
    page.goto(address)
    page.get_by_role("tab", name="Reconstruct").wait_for()
    yield page, wrong
    assert [text for text in wrong if text != OWN_NOISE] == []
    context.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    Image.effect_mandelbrot((96, 64), (-2, -1, 1, 1), 20).convert("RGB").save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_it_is_served_to_this_machine_only(address: str) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)


def test_a_picture_goes_through_all_tokenizers(opened: tuple[Any, list[str]], file: Path) -> None:
    page, _ = opened
    page.locator("input[type=file]").first.set_input_files(file)
    page.get_by_text("dB PSNR").nth(1).wait_for()
    texts = page.get_by_text("dB PSNR").all_inner_texts()
    assert len(texts) == 2
    assert all("64 x 32 pixels" in text for text in texts)  # 96 x 64 made smaller: 64 x 43, of which 16 divides 32
    assert sum("4 x 2 tokens in 2 codebooks" in text for text in texts) == 1  # the other one is continuous
    assert page.get_by_role("button", name="Share").count() == 0
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]


def test_tokens_are_chosen_on_the_map_and_changed(opened: tuple[Any, list[str]], file: Path) -> None:
    page, _ = opened
    page.get_by_role("tab", name="Tokens").click()
    page.get_by_role("button", name="Undo").click()
    page.get_by_text("there is no picture yet").wait_for()
    page.locator("input[type=file]").nth(1).set_input_files(file)
    chart = page.locator(".pixels img:visible")
    chart.wait_for()
    words = page.locator(".prose.told:visible")
    chart.click(position={"x": 20, "y": 20})
    page.get_by_text("A: row 0, column 0").wait_for()
    before = words.inner_text()
    box = chart.bounding_box()
    chart.click(position={"x": box["width"] - 20, "y": box["height"] - 20})
    page.get_by_text("B: row 1, column 3").wait_for()
    code = re.search(r"B: row 1, column 3, code (\d+)", words.inner_text())
    assert code is not None
    page.get_by_role("button", name="Swap A and B").click()
    page.get_by_text(f"A: row 0, column 0, code {code[1]}").wait_for()
    page.get_by_label("Code", exact=True).fill("999999")
    page.get_by_role("button", name="Set A to the code").click()
    page.get_by_text("code 999999: expected 0 to").wait_for()
    page.get_by_role("button", name="Start again").click()
    page.get_by_text(re.search(r"A: row 0, column 0, code \d+", before)[0]).wait_for()


def test_images_are_made_from_a_seed(opened: tuple[Any, list[str]]) -> None:
    page, _ = opened
    page.get_by_role("tab", name="Generate").click()
    page.get_by_role("button", name="Make").click()
    sheet = page.locator(".pixels img:visible")
    sheet.wait_for()
    assert sheet.evaluate("image => image.decode().then(() => image.naturalWidth)") == 4 * 96 + 3 * 4
    assert page.get_by_label("Class").is_visible()


def test_what_is_no_picture_is_told(opened: tuple[Any, list[str]], tmp_path: Path) -> None:
    page, wrong = opened
    Image.new("RGB", (8, 8)).save(tmp_path / "small.png")
    page.locator("input[type=file]").first.set_input_files(tmp_path / "small.png")
    page.get_by_text("8 x 8 pixels: expected at least 16 x 16").wait_for()
    assert [text for text in wrong if text != OWN_NOISE] == []
