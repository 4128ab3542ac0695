"""The package as others install it: built into a wheel, unpacked elsewhere, used without the repository."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("smalti-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def python(installed: Path, folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-W", "error", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_the_package_reads_is_in_the_wheel(installed: Path) -> None:
    kept = {path.relative_to(ROOT) for path in (ROOT / "smalti").rglob("*") if path.is_file()}
    kept = {path for path in kept if "__pycache__" not in path.parts}
    packed = {path.relative_to(installed) for path in (installed / "smalti").rglob("*") if path.is_file()}
    forms = {Path("smalti/bench/textbook", path.name) for path in (ROOT / "benchmarks").glob("textbook_*.py")}
    assert len(forms) > 1
    assert packed == kept | forms
    assert Path("smalti/py.typed") in packed


def test_verbs_work_from_a_wheel(installed: Path, tmp_path: Path) -> None:
    where = python(installed, tmp_path, "-c", "import smalti; print(smalti.__file__)").strip()
    assert Path(where) == installed / "smalti" / "__init__.py"
    rows = ["quantizer", "--tokens", "16", "--codes", "32", "--repeats", "1", "--no-compiled", "--json"]
    found = json.loads(python(installed, tmp_path, "-m", "smalti", "bench", *rows))
    assert any("textbook" in json.dumps(row) for row in found)
    small = ["--set", "engine.max_steps=2", "--set", "engine.samples=2", "--set", "engine.device=cpu"]
    python(installed, tmp_path, "-m", "smalti", "train", "tiny-wgan-digits", "--out", "run", *small)
    assert {"evaluation.json", "model", "recipe.yaml", "report"} <= {path.name for path in (tmp_path / "run").iterdir()}
