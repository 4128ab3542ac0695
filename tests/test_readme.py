"""The README holds what it says: its names exist, its commands and its Python run."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import smalti
from smalti.assembly.recipe import shipped
from smalti.cli._app import app
from smalti.losses import Loss
from smalti.registry import names

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
TINY = ROOT / "tests" / "cli" / "tiny.yaml"


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_column(title: str) -> list[str]:
    rows = re.findall(r"^\| (`.*?) \|", section(title), re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row) if name != "type"]


def test_terms_of_the_table_exist() -> None:
    table = first_column("Loss terms")
    assert len(table) > 10
    assert set(table) <= set(names(Loss))
    assert f"There are {len(names(Loss))} losses" in TEXT


def test_table_of_recipes_is_complete() -> None:
    assert sorted(first_column("Recipes")) == list(shipped())


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", re.sub(r"\s+", " ", TEXT))
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert not missing


def test_verbs_and_options_exist() -> None:
    commands = re.findall(r"^smalti (.*?)(?:#.*)?$", section("Five commands"), re.MULTILINE)
    assert len(commands) == 5 + 5
    for command in commands:
        verb, *rest = command.split()
        verb_help = CliRunner().invoke(app, [verb, "--help"], prog_name="smalti")
        assert verb_help.exit_code == 0, command
        for option in (word for word in rest if word.startswith("--")):
            assert option in verb_help.stdout, command


def test_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    smalti.train(TINY, out="runs/quickstart", quiet=True)
    Image.radial_gradient("L").resize((32, 16)).convert("RGB").save("cat.png")
    code = section("Python").partition("```python\n")[2].partition("```")[0]
    found: dict[str, torch.Tensor] = {}
    exec(compile(code, "README.md", "exec"), found)
    assert torch.equal(found["same"], found["model"].decode(found["code"].latent))
    assert found["whole"].shape == (1, 3, 16, 32)
    assert sorted(path.name for path in Path("my-tokenizer").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
