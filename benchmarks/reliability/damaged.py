"""Files of a stopped run are damaged: it must end as if nothing had been, or say in one message why not.

python -m benchmarks.reliability.damaged
"""

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.reliability._children import in_a_child
from benchmarks.reliability._runs import RECIPE, differences, left_by, lines_of, without_times

Damage = Callable[[Path], None]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 0x40
    path.write_bytes(data)


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def nul_tail(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(700))


def gone(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def text(path: Path) -> None:
    path.write_bytes("no \xff such thing\n".encode("latin-1"))


def written(value: object) -> Damage:
    def damage(path: Path) -> None:
        path.write_text(json.dumps(value))

    return damage


def changed(**fields: object) -> Damage:
    def damage(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return damage


def line(number: int, content: bytes) -> Damage:
    def damage(path: Path) -> None:
        lines = path.read_bytes().splitlines(keepends=True)
        lines[number] = content
        path.write_bytes(b"".join(lines))

    return damage


def without(name: str) -> Damage:
    def damage(path: Path) -> None:
        found = json.loads(path.read_text())
        del found[name]
        path.write_text(json.dumps(found))

    return damage


NEWEST = "checkpoints/NEWEST"
OF_FILES: dict[str, Damage] = {
    "cut in half": cut, "empty": empty, "one bit": flip, "zeros": zeros, "NULs after its end": nul_tail,
    "deleted": gone, "a folder in its place": a_folder, "other text": text,
}  # fmt: skip
OF_MANIFESTS: dict[str, Damage] = {
    "no step": without("step"), "step of another": changed(step=1), "step is a word": changed(step="x"),
    "no sha256": without("sha256"), "sha256 empty": changed(sha256={}), "sha256 a list": changed(sha256=[]),
    "sha256 outside": changed(sha256={"../../recipe.yaml": "0" * 64}), "unknown format": changed(format=99),
    "a list": written([]), "null": written(None), "deep": lambda path: path.write_text("[" * 100_000),
}  # fmt: skip
OF_LOGS: dict[str, Damage] = {
    "line 12 is no JSON": line(11, b"{oops\n"), "line 12 cut, no newline": line(11, b'{"step": 1'),
    "line 12 binary": line(11, b"\xff\xfe\x00\n"), "line 12 empty": line(11, b"\n"),
    "line 12 of a later step": line(11, b'{"step": 100000}\n'), "line 12 a list": line(11, b"[1]\n"),
    "line 12 without step": line(11, b"{}\n"),
}  # fmt: skip


def damages() -> dict[str, tuple[str, Damage]]:
    """What is done -> to which file of a run."""
    files = ("state.pt", "generator.safetensors", "ema.safetensors", "manifest.json")
    found = {f"{file}: {how}": (f"{NEWEST}/{file}", do) for file in files for how, do in OF_FILES.items()}
    found |= {f"manifest.json: {how}": (f"{NEWEST}/manifest.json", do) for how, do in OF_MANIFESTS.items()}
    for file, kinds in (("metrics.jsonl", OF_FILES | OF_LOGS), ("recipe.yaml", OF_FILES)):
        found |= {f"{file}: {how}": (file, do) for how, do in kinds.items()}
    return found | {"newest checkpoint: deleted": (NEWEST, gone), "all checkpoints: deleted": ("checkpoints", gone)}


def train(recipe: Path, out: Path, *more: str) -> tuple[int, str]:
    """Exit code and output of ``smalti train --resume``."""
    from typer.testing import CliRunner

    from smalti.cli._app import app

    result = CliRunner().invoke(app, ["train", str(recipe), "--out", str(out), "--resume", *more])
    return result.exit_code, result.output + (repr(result.exception) if result.exit_code == 1 else "")


def stop_at(recipe: Path, out: Path, lines: int) -> tuple[int, str]:
    """``train``, asked to stop once its log has so many lines."""

    def watch() -> None:
        while lines_of(out / "metrics.jsonl") < lines:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    return train(recipe, out)


def readable(log: Path) -> list[dict[str, Any]]:
    """The records of a damaged log that are still there."""
    found = []
    for text in log.read_bytes().splitlines() if log.is_file() else ():
        try:
            found.append(without_times(json.loads(text)))
        except (ValueError, AttributeError):
            continue
    return found


def judged(recipe: Path, out: Path, expected: dict[str, Any], original: list[dict[str, Any]]) -> str:
    """What became of a damaged run, in a word; BROKE if a promise did."""
    still = readable(out / "metrics.jsonl")
    outcome = in_a_child(lambda: train(recipe, out), limit=120.0)
    code, said = outcome.value or (-1, outcome.died)
    if code == 2 and said.strip():
        return f"refused: {said.strip().splitlines()[-1]}"
    if code != 0:
        return f"BROKE: exit code {code}: {said.strip()[-500:]}"
    left = left_by(out)
    damaged = [record for record in original if record not in still]
    left["log"] = [record for record in left["log"] if "warning" not in record]  # it says which lines are lost
    expected = {**expected, "log": [record for record in expected["log"] if record not in damaged]}
    left["log"] = [record for record in left["log"] if record not in damaged]  # written again by the resumed run
    found = differences(expected, left)
    if found:
        return f"BROKE: other {', '.join(found)}"
    return f"as if nothing had been, {len(damaged)} lines of the log apart" if damaged else "as if nothing had been"


def main() -> int:
    import accelerate  # noqa: F401  # once, not in every child
    import torchmetrics  # noqa: F401

    import smalti.assembly.assemble  # noqa: F401

    broken = 0
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.yaml"
        recipe.write_text(RECIPE)
        whole, stopped = Path(folder) / "whole", Path(folder) / "stopped"
        in_a_child(lambda: train(recipe, whole), limit=120.0)
        expected = left_by(whole)
        in_a_child(lambda: stop_at(recipe, stopped, 40), limit=120.0)
        original = readable(stopped / "metrics.jsonl")
        for what, (file, damage) in damages().items():
            out = Path(folder) / "damaged"
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(stopped, out)
            newest = sorted(entry.name for entry in (out / "checkpoints").iterdir())[-1]
            damage(out / file.replace("NEWEST", newest))
            word = judged(recipe, out, expected, original)
            broken += word.startswith("BROKE")
            print(f"{what}: {word}", flush=True)
    print(f"{len(damages())} kinds of damage: {len(damages()) - broken} recovered from or refused in one message")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
