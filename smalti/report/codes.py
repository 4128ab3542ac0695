"""How often each code was chosen in the last updates of a run, as the saved model counted."""

import re
from collections.abc import Callable
from pathlib import Path

from smalti.report.run import Run, left_out

_COUNTS = re.compile(r"bottleneck\.branches\.([\w-]+)\.quantizer\.(?:.*\.)?window\.counts")


def shares(run: Run, say: Callable[[str], None] = lambda line: None) -> dict[str, list[float]]:
    """Codebook -> share of the tokens of each code that was chosen, the largest first; empty if nothing was counted.

    Args:
        run: whose model is looked at.
        say: told in one line why the file of the model cannot be read.
    """
    path = run.folder / "model" / "model.safetensors"
    return _read(path, say) if path.is_file() else {}


def _read(path: Path, say: Callable[[str], None]) -> dict[str, list[float]]:
    from safetensors import SafetensorError, safe_open

    found: dict[str, list[float]] = {}
    try:
        with safe_open(path, "numpy") as file:
            for key in file.keys():  # noqa: SIM118
                match = _COUNTS.fullmatch(key)
                counts = file.get_tensor(key).sum(axis=0) if match else None
                if match and counts is not None and counts.sum() > 0:
                    ordered = sorted((int(count) for count in counts.ravel() if count > 0), reverse=True)
                    found[match[1]] = [count / sum(ordered) for count in ordered]
    except (OSError, SafetensorError, ValueError) as error:
        say(left_out(path, error))  # a model that is being written, or damaged: the page is still worth having
        return {}
    return found
