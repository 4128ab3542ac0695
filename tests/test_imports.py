"""Importing is cheap and silent: no torch, nothing printed, names resolved when they are asked for."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

import smalti
from tests.test_house import modules

HEAVY = ("torch", "numpy", "pydantic", "accelerate", "torchmetrics", "transformers", "matplotlib", "huggingface_hub")

CALL = """
import runpy, sys
sys.argv = ["smalti", *{arguments!r}]
try:
    runpy.run_module("smalti", run_name="__main__")
except SystemExit as end:
    assert not end.code
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)


def loaded_by(code: str) -> set[str]:
    """The heavy packages that some code brings in."""
    done = run(f"{code}\nimport json, sys\nprint('\\n' + json.dumps([n for n in {HEAVY!r} if n in sys.modules]))")
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_smalti_brings_in_nothing_heavy() -> None:
    assert loaded_by("import smalti") == set()


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["recipes", "--help"], ["--version"]])
def test_help_imports_no_torch(arguments: list[str]) -> None:
    assert loaded_by(CALL.format(arguments=arguments)) <= {"pydantic"}  # typer may read arguments with it


def test_config_imports_no_torch() -> None:
    assert "torch" not in loaded_by("import smalti.config")


def test_nothing_is_printed_at_import() -> None:
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    left_out = {"smalti.__main__"}
    if not find_spec("triton"):
        left_out |= {"smalti.nn._triton_kernels", "smalti.nn._triton_launch", "smalti.nn._triton_norm"}
    done = run(code, *(name for name in modules() if name not in left_out))
    assert done.stdout + done.stderr == ""


def test_every_public_name_resolves() -> None:
    assert all(getattr(smalti, name) is not None for name in smalti.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'loda'"):
        _ = smalti.loda  # type: ignore[attr-defined]
