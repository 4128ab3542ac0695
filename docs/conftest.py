"""A page runs in a folder of its own with the files that it names: a block ```python my_losses.py is such a file."""

import re
import sys
from pathlib import Path

import pytest
import torch

collect_ignore = ["_build", "reference", "conf.py"]  # made by the site's build, and its configuration
NAMED = re.compile(r"^```\w+ (\S+\.\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def files_of_the_page(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes the page's files, makes their folder the current one, and lets Python import from it."""
    files = NAMED.findall(request.path.read_text(encoding="utf-8"))
    if not files:
        return
    torch.manual_seed(0)
    for name, text in files:
        (tmp_path / name).write_text(text, encoding="utf-8")
        monkeypatch.delitem(sys.modules, Path(name).stem, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
