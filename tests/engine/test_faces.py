"""What a person sees of a run: a terminal of any width and height, a notebook, plain lines."""

import io
import os
import pty
import re
import select
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from smalti.engine._rows import sections
from smalti.engine._terminal import Terminal
from smalti.engine.result import RunResult
from smalti.engine.watcher import Watcher

TERMS = {"pixel": 0.25, "perceptual": 0.125, "adversarial": 1.5}
TRAINED: dict[str, Any] = {"step": 300, "train/generator/total": 0.5, "train/discriminator/total": 2.0} | {
    f"train/{player}/{term}/{key}": value
    for player, terms in (("generator", TERMS), ("discriminator", {"hinge": 2.0}))
    for term, number in terms.items()
    for key, value in (("raw", number), ("weight", 0.5), ("weighted", number / 2), ("status", "active"))
}
TRAINED["train/generator/adversarial/status"] = "waiting"
TRAINED |= {"train/codebook/visual/usage": 0.875, "train/codebook/visual/perplexity": 301.2}
MEASURED = {"step": 300, "val/psnr": 31.25, "val/generator/total": 0.0625, "val/generator/pixel/raw": 0.77}


def shown(width: int, height: int, *records: dict[str, Any]) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, height=height, color_system=None)
    terminal = Terminal(2000, console)
    terminal.advance(300)
    for record in records:
        terminal.show(record, "42.1 images/s  0:01:10 left" if "train/generator/total" in record else "")
    console.print(terminal.picture())
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120, 200])
def test_bar_and_tables_fit_the_width_and_cut_nothing(width: int) -> None:
    lines = shown(width, 50, TRAINED, MEASURED)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "300/2000" in lines[0]
    assert lines[0].rstrip().endswith("15 % 42.1 images/s  0:01:10 left")
    assert "…" not in text
    for word in (*TERMS, "hinge", "visual", "301.2", "0.875", "psnr", "31.25", "0.0625", "waiting"):
        assert word in text
    assert "0.77" not in text, "single terms of a validation are for the page"
    assert "0.75" not in text, "what a waiting term would add is not shown"


def test_wide_terminals_put_tables_side_by_side() -> None:
    assert len(shown(200, 50, TRAINED)) < len(shown(80, 50, TRAINED))


@pytest.mark.parametrize("height", [4, 6, 8])
def test_tables_are_cut_to_the_height_and_say_so(height: int) -> None:
    lines = shown(80, height, TRAINED, MEASURED)
    assert len(lines) <= height
    assert re.fullmatch(r"\.\.\. and \d+ more lines", lines[-1].strip())


def test_last_validation_stays_and_terms_are_replaced() -> None:
    later = TRAINED | {"train/generator/pixel/raw": 0.0009}
    text = "\n".join(shown(120, 50, TRAINED, MEASURED, later))
    assert "31.25" in text
    assert "0.0009" in text
    assert "0.25 " not in text


def test_a_record_without_terms_has_no_table() -> None:
    assert sections({"step": 0}) == []
    assert len(shown(80, 50, {"step": 0})) == 1


def test_on_a_real_terminal_a_run_is_one_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setenv("LINES", "40")
        monkeypatch.setenv("TERM", "xterm")
        watcher = Watcher(10, tmp_path)
        watcher.start(0)
        watcher.advance(5)
        watcher.show(TRAINED | {"images_per_second": 3.0, "eta_seconds": 60.0})
        watcher.say("step 5 warning: it is late")
        watcher.stop()
        terminal.flush()
        told = ""
        while "perceptual" not in told and select.select([leader], [], [], 10)[0]:  # it comes in pieces
            told += os.read(leader, 1 << 16).decode()
    os.close(leader)
    assert "step 5 warning: it is late" in told
    assert "\x1b[33m" in told, "a warning is yellow"
    assert "5/10" in told
    assert "3.0 images/s  0:01:00 left" in told
    assert "perceptual" in told


def test_elsewhere_a_log_step_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watcher = Watcher(10, tmp_path)
    watcher.start(0)
    watcher.show({"step": 5, "train/generator/total": 0.5, "images_per_second": 3.0})
    watcher.stop()
    assert capsys.readouterr().err == "step 5/10  3.0 images/s  generator/total 0.5\n"
    silent = Watcher(10, tmp_path, quiet=True)
    silent.start(0)
    silent.say("nothing")
    assert capsys.readouterr().err == ""


class Outputs:
    """What a notebook's page would hold: the newest content of each output."""

    def __init__(self) -> None:
        self.pages: dict[str, str] = {}

    def publish(self, data: dict[str, str], transient: dict[str, str], update: bool = False, **_: Any) -> None:
        assert update == (transient["display_id"] in self.pages)
        self.pages[transient["display_id"]] = data["text/html"]


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Outputs]:
    import IPython
    from IPython.core.interactiveshell import InteractiveShell

    outputs = Outputs()
    shell = InteractiveShell.instance(history_load_length=0)
    shell.history_manager.enabled = False
    monkeypatch.setattr(shell, "display_pub", outputs)
    monkeypatch.setattr(shell, "kernel", object(), raising=False)
    assert IPython.get_ipython() is shell
    yield outputs
    shell.history_manager.end_session()
    InteractiveShell.clear_instance()


def test_in_a_notebook_a_run_is_one_output(tmp_path: Path, notebook: Outputs) -> None:
    watcher = Watcher(10, tmp_path)
    watcher.start(0)
    Image.new("RGB", (4, 4)).save(tmp_path / "000005.png")
    watcher.show(TRAINED)
    watcher.show(MEASURED)
    watcher.say("step 5 warning: a <b> & c")
    watcher.advance(9)
    watcher.stop()
    (page,) = notebook.pages.values()
    assert '<progress value="9" max="10"' in page
    assert "step 5 warning: a &lt;b&gt; &amp; c" in page
    assert ">perceptual</td><td>0.125</td>" in page
    assert ">psnr</td><td>31.25</td>" in page
    assert 'src="data:image/png;base64,iVBOR' in page
    assert "step 5<" in page


def test_results_show_themselves(tmp_path: Path) -> None:
    result = RunResult(folder=tmp_path, step=7, finished=True, evaluation={"psnr": 20.5, "images": ["cat"]})
    page = result._repr_html_()
    assert "step 7, finished" in page
    assert ">psnr</td><td>20.5</td>" in page
    assert "cat" not in page
    stopped = RunResult(folder=tmp_path, step=7, finished=False, evaluation={})
    assert "resumed" in stopped._repr_html_()
