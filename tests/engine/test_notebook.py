"""Runs in a kernel of Jupyter, as a notebook starts one: what its cells hold afterwards."""

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

OVERRIDES = ["engine.max_steps=4", "engine.log_every=2", "engine.sample_every=4", "validation.metrics=[psnr]"]
CELLS = (
    "import smalti",
    f"result = smalti.train('tiny-quickstart', {OVERRIDES}, out='run')",
    "result",
    f"smalti.train('tiny-quickstart', {OVERRIDES}, out='run')",
    "smalti.train('quickstrt')",
)


@pytest.fixture(name="cells", scope="module")
def _cells(tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    """The outputs of each cell; a cell that fails does not stop the others."""
    folder = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.setenv("JUPYTER_PLATFORM_DIRS", "1")
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in CELLS])
        options = {"timeout": 250, "kernel_name": "python3", "allow_errors": True}
        nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(folder)}}, **options).execute()
    return [cell.outputs for cell in notebook.cells]


def test_a_run_is_one_output_with_its_last_state_and_picture(cells: list[list[Any]]) -> None:
    assert cells[0] == []
    (output,) = cells[1]
    page = output["data"]["text/html"]
    assert '<progress value="4" max="4"' in page
    assert "commitment" in page
    assert "psnr" in page
    coded = page.partition('src="data:image/png;base64,')[2].partition('"')[0]
    with Image.open(io.BytesIO(base64.b64decode(coded))) as picture:
        assert min(picture.size) > 100
    assert "step 4<" in page


def test_a_result_is_a_table(cells: list[list[Any]]) -> None:
    (output,) = cells[2]
    page = output["data"]["text/html"]
    assert "step 4, finished" in page
    assert "psnr" in page


@pytest.mark.parametrize(("cell", "message"), [(3, "run is not empty: resume"), (4, "quickstart")])
def test_what_can_be_mended_is_told_without_a_traceback(cells: list[list[Any]], cell: int, message: str) -> None:
    (output,) = cells[cell]
    assert message in output["evalue"]
    assert "".join(output["traceback"]).endswith(output["evalue"])
    assert "File" not in "".join(output["traceback"])
