"""What a pass over images has measured so far, kept on disk: whoever kills it loses a minute."""

import contextlib
import os
from pathlib import Path
from typing import Any

import torch

from smalti.metrics.evaluation import Examination
from smalti.nn.distributed import rank

VERSION = 2


class Partial:
    """One file for each rank, ``.evaluation-<key>-<rank>.pt``, written whole.

    Args:
        folder: where it lies.
        key: what must be equal for a pass to be gone on with; another key has another file.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.path = folder / f".evaluation-{key[:16]}-{rank()}.pt"
        self.key = key

    def save(self, examination: Examination, done: int) -> None:
        """Keeps the sums and rows of the first ``done`` images of this rank."""
        states = {name: _state(accumulator) for name, accumulator in examination.accumulators.items()}
        told = {
            "version": VERSION,
            "key": self.key,
            "done": done,
            "states": states,
            "rows": examination.rows,
            "small": examination.small,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(told, self._beside)
        os.replace(self._beside, self.path)

    def restore(self, examination: Examination) -> int:
        """Puts back what was kept; how many images of this rank that was, 0 if there is nothing or it is damaged."""
        try:
            told: dict[str, Any] = torch.load(self.path, weights_only=True)
        except FileNotFoundError:
            return 0
        except Exception:  # damaged: the pass begins anew, which costs time and nothing else
            return 0
        if told.get("version") != VERSION or told.get("key") != self.key:
            return 0
        for name, state in told["states"].items():
            accumulator = examination.accumulators[name]
            for field, value in state["values"].items():
                setattr(accumulator, field, value)
            accumulator._update_count = state["updates"]
        examination.rows, examination.small = told["rows"], told["small"]
        return int(told["done"])

    def forget(self) -> None:
        """Removes the file, and what a killed process did not finish: the pass came to its end."""
        for path in (self.path, self._beside):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    @property
    def _beside(self) -> Path:
        return self.path.with_suffix(".unfinished")


def _state(accumulator: Any) -> dict[str, Any]:
    return {
        "values": {name: getattr(accumulator, name) for name in accumulator._defaults},
        "updates": accumulator._update_count,
    }
