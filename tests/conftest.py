"""Shared options and fixtures: ``--device``, ``--dtype``, the golden numbers, one thread a worker."""

import atexit
import gc
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from safetensors import safe_open

from tests.browser import browser, open_page  # noqa: F401

GOLDEN = Path(__file__).parent / "golden"
TABLES = tempfile.mkdtemp(prefix="smalti-tests-")  # what data sets are turned into on the way
os.environ["HF_DATASETS_CACHE"] = TABLES
atexit.register(shutil.rmtree, TABLES, ignore_errors=True)
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device", default="cpu", choices=["cpu", "cuda"], help="where tensors of the tests live and trainings run"
    )
    parser.addoption("--dtype", default="float32", help="default dtype of the tests that do not fix one")
    parser.addoption("--slow", action="store_true", help="also run the slow matrices")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--device") == "cpu":  # before anyone has asked for a GPU: what is there must not matter
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif not torch.cuda.is_available():
        raise pytest.UsageError("--device cuda: torch sees no GPU here")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--device") != "cuda":
        skip = pytest.mark.skip(reason="needs a GPU: make test-gpu")
        for item in items:
            if "gpu" in item.keywords and item.get_closest_marker("gpu"):
                item.add_marker(skip)
    if not config.getoption("--slow"):
        skip = pytest.mark.skip(reason="a slow matrix: make test-all")
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(skip)


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was imported and collected stays: looking through it again and again took a good part of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.config.getoption("--device"))


@pytest.fixture
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return getattr(torch, request.config.getoption("--dtype"))


@pytest.fixture
def golden() -> Callable[[str], Any]:
    """``golden("ldm/kl_tiny_io.safetensors")`` -> dict of tensors; ``.json`` -> parsed."""

    def read(name: str) -> Any:
        path = GOLDEN / name
        if path.suffix == ".json":
            return json.loads(path.read_text())
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118

    return read


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
