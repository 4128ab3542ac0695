"""Pages as a reader sees them: a headless Chromium, what stands on its console, and what it asks the network for."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

COMMANDS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ENVIRONMENT = "SMALTI_CHROMIUM"
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE, LAPTOP = (390, 844), (1280, 800)


@dataclass
class Opened:
    """A page in a browser.

    ``page`` is Playwright's; ``complaints`` are errors and warnings of the console and exceptions of scripts;
    ``requests`` are the addresses that the page asked for besides its own and what is in it.
    """

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def overflow(self) -> int:
        """By how many pixels the page is wider than its window."""
        found: int = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return found


def chromium() -> str | None:
    """The path of a browser: what ``SMALTI_CHROMIUM`` names, else the first that is on the PATH."""
    named = os.environ.get(ENVIRONMENT)
    if named:
        found = shutil.which(named)
        assert found, f"{ENVIRONMENT}={named!r}: no such program"
        return found
    return next(filter(None, map(shutil.which, COMMANDS)), None)


@pytest.fixture(scope="module")  # Playwright's loop is the thread's while it runs: other modules may want their own
def browser() -> Iterator[Any]:
    """Chromium, for the tests of a module; they are skipped where there is none."""
    path = chromium()
    if path is None:
        pytest.skip(f"no Chromium: install it, or name it in {ENVIRONMENT}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, headless=True, args=list(QUIET))
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Opened]]:
    """``open_page(path, size=PHONE, dark=True)`` -> the page of a file, in a browser of its own without a network."""
    contexts = []

    def opened(path: Path, size: tuple[int, int] = LAPTOP, dark: bool = False) -> Opened:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light", offline=True
        )
        contexts.append(context)
        found = Opened(context.new_page())
        own = path.resolve().as_uri()
        found.page.on("console", lambda said: said.type in {"error", "warning"} and found.complaints.append(said.text))
        found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
        found.page.on("request", lambda asked: _leaves(asked.url, own) and found.requests.append(asked.url))
        found.page.goto(own)
        return found

    yield opened
    for context in contexts:
        context.close()


def _leaves(url: str, own: str) -> bool:
    return url.partition("#")[0] != own and not url.startswith(("data:", "blob:"))
