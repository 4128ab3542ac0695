"""A model that the engine trained, once for all tests of the command line, and a way to run verbs in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from smalti.cli._app import app
from smalti.cli._defence import UNFORESEEN

TINY = Path(__file__).parent / "tiny.yaml"

Verb = Callable[..., Result]


@pytest.fixture
def smalti_cli() -> Verb:
    """``smalti_cli("train", "x.yaml", "--json")`` -> exit code, stdout, stderr; never by the last line of defence."""

    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="smalti")
        assert result.exit_code != UNFORESEEN, result.stderr
        return result

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of ``tiny.yaml``. Tests that change it work on a copy."""
    import smalti

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    smalti.train(TINY, out=folder, quiet=True)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with two images whose sizes are divisible by 4, one of them a level down."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    Image.effect_mandelbrot((24, 16), (-2, -1, 1, 1), 20).convert("RGB").save(folder / "a.png")
    Image.radial_gradient("L").resize((32, 32)).convert("RGB").save(folder / "below" / "b.png")
    return folder
