"""Where a run computes: versions, device and processes, as ``environment.json`` of its folder keeps them."""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from smalti.config import read_json, read_text
from smalti.engine.runtime import Runtime
from smalti.engine.settings import EngineSettings
from smalti.registry import UserError
from smalti.writing import to_json, write_whole

FILE = "environment.json"


def surroundings(runtime: Runtime, settings: EngineSettings) -> dict[str, Any]:
    """What numbers and speed of a run depend on besides its recipe. No names of hosts or people."""
    from smalti.evaluation.results import versions

    return {
        **versions(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device_name(runtime.device),
        "processes": runtime.world_size,
        "threads": torch.get_num_threads(),
        "precision": settings.precision,
    }


def device_name(device: torch.device) -> str:
    """What a device is called: ``cpu``, or ``cuda: `` and the name of the card."""
    return f"cuda: {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type


def note(folder: Path, step: int, around: Mapping[str, Any]) -> None:
    """Writes down from which step on a run computes where; a list, of which a resumed run adds what is another.

    Args:
        folder: of the run.
        step: that it goes on from.
        around: as ``surroundings`` gives it.
    """
    path = folder / FILE
    there = _read(path)
    kept = [entry for entry in there if step and entry["step"] < step]
    if not kept or {**kept[-1], "step": step} != {"step": step, **around}:
        kept.append({"step": step, **around})
    if kept != there:
        write_whole(path, to_json(kept) + "\n")


def _read(path: Path) -> list[dict[str, Any]]:
    """What was noted before; nothing if that cannot be read, for which no run shall stop."""
    try:
        found = read_json(read_text(path), str(path))
    except (OSError, UserError):
        return []
    entries = found if isinstance(found, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("step"), int)]
