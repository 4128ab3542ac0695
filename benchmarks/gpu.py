"""All that is asked of a GPU, in one run of at most six minutes on a bare machine, without a network.

    python -m benchmarks.gpu --out runs/gpu                     # the whole
    python -m benchmarks.gpu --out runs/gpu --only roofs steps  # parts of it
    python -m benchmarks.gpu --dry-run                          # what it would run
    python -m benchmarks.gpu --device cpu --tiny                # the same code, small, on a CPU

Python 3.11 or newer with torch, triton, accelerate and torchmetrics is enough; transformers and pytest are
used where they are there. What the machine lacks may be brought along in a folder (``--packages``), which comes last on
the path. Each part is a process of its own with a limit of its own; ``results.json`` in the output folder has a number
as soon as it is known, and ``table.md`` is what docs/performance.md takes. All weights are random.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DEADLINE = 350.0  # seconds of the whole


@dataclass(frozen=True, kw_only=True)
class Part:
    """What is run in a process of its own, the seconds it may take, and those that are kept for it."""

    name: str
    limit: float
    kept: float


# The order is that of importance; what later parts are kept, earlier ones may not use up.
PARTS = (
    Part(name="roofs", limit=40, kept=20),
    Part(name="step-shipped", limit=60, kept=30),
    Part(name="step-channels-last", limit=50, kept=30),
    Part(name="step-compiled", limit=110, kept=60),
    Part(name="kernels", limit=60, kept=30),
    Part(name="quickstart", limit=45, kept=25),
    Part(name="tests", limit=90, kept=40),
    Part(name="step-frozen", limit=90, kept=0),
    Part(name="suite", limit=90, kept=0),
)


def command(part: str, device: str, out: Path, tiny: bool) -> list[str]:
    """What runs one part."""
    words = [sys.executable, "-m", "benchmarks.gpu_parts", part, "--device", device, "--out", str(out)]
    return [*words, *(["--tiny"] if tiny else [])]


def environment(packages: Path | None) -> dict[str, str]:
    """Of the parts: no network, and packages that the machine lacks behind its own."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")]), *([str(packages)] if packages else [])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def run(part: Part, words: list[str], log: Path, seconds: float, surroundings: dict[str, str]) -> dict[str, Any]:
    """How a part ended; what it has written until then stays, whatever happens to it."""
    began = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(
            words, cwd=ROOT, env=surroundings, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(timeout=seconds)
            ended = "done" if code == 0 else f"exit code {code}"
        except subprocess.TimeoutExpired:
            ended = f"stopped after {seconds:.0f} s"
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    lines = log.read_text(errors="replace").strip().splitlines()
    trouble = {} if ended == "done" else {"last_lines": lines[-8:]}
    return {"ended": ended, "seconds": round(time.monotonic() - began, 1), **trouble}


def measure(parts: list[Part], options: argparse.Namespace) -> dict[str, Any]:
    """Runs the parts one after the other and gathers what they found."""
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    began, results = time.monotonic(), {}
    for number, part in enumerate(parts):
        kept = options.slack * sum(later.kept for later in parts[number + 1 :])
        left = options.slack * options.deadline - (time.monotonic() - began)
        seconds = min(part.limit * options.slack, left - kept)
        place = out / f"{part.name}.json"
        place.unlink(missing_ok=True)
        if seconds < 5:
            outcome: dict[str, Any] = {"ended": "no time left"}
        else:
            words = command(part.name, options.device, place, options.tiny)
            outcome = run(part, words, out / f"{part.name}.log", seconds, environment(options.packages))
        found = json.loads(place.read_text()) if place.exists() else {}
        results[part.name] = {**outcome, "found": found}
        print(f"{part.name}: {outcome['ended']}, {outcome.get('seconds', 0)} s", flush=True)
        write(out / "results.json", json.dumps(results, indent=1))
        write(out / "table.md", table(results, options))
    return results


def write(path: Path, text: str) -> None:
    """Writes a file whole: a run that is cut off leaves the last whole one."""
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


def table(results: dict[str, Any], options: argparse.Namespace) -> str:
    """The page's section: the command, the card, and the tables that could be filled."""
    found = {name: result["found"] for name, result in results.items()}
    card = found.get("roofs", {})
    words = f"python -m benchmarks.gpu --device {options.device}" + (" --tiny" if options.tiny else "")
    lines = [f"`{words}` on {card.get('card', 'a device that did not answer')}", ""]
    lines += [f"Roofs: {'; '.join(f'{k} {v:,.4g}' for k, v in card.get('roofs', {}).items())}.", ""]
    lines += ["| step | images/s | ms | peak GiB | of the matrix roof | of the convolution roof | copies | norms |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    lines += [_step_row(name, part["step"]) for name, part in found.items() if "step" in part]
    lines += ["", "| kernel | ms | against | error | path |", "|---|---|---|---|---|"]
    lines += [_kernel_row(name, row) for name, row in found.get("kernels", {}).items()]
    lines += ["", "| quickstart | images/s | ms | updates as graphs |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {row['images_per_second']:,.0f} | {row['milliseconds']:.2f} | "
        f"{'; '.join(f'{player}: {how}' for player, how in row['graphs'].items())} |"
        for name, row in found.get("quickstart", {}).items()
    ]
    for name, what in (("tests", "Tests of the GPU"), ("suite", "Trainings of the suite on this device")):
        tests = found.get(name, {})
        lines += ["", f"{what}: {tests.get('passed', 0)} passed, {tests.get('failed', 0)} failed."]
        lines += [f"* {line}" for line in tests.get("failures", [])]
    ended = {name: result["ended"] for name, result in results.items() if result["ended"] != "done"}
    lines += ["", *(f"{name}: {how}." for name, how in ended.items())]
    return "\n".join(lines).rstrip() + "\n"


def _step_row(name: str, step: dict[str, Any]) -> str:
    share = {kind: f"{100 * part:.0f} %" for kind, (_, part) in step["classes"].items()}
    peak = "" if step["peak_mib"] is None else f"{step['peak_mib'] / 1024:.1f}"
    roofs = [f"{100 * step['tflops'] / step[roof]:.0f} %" for roof in ("matrix_tflops", "convolution_tflops")]
    numbers = [f"{step['images_per_second']:,.1f}", f"{step['milliseconds']:.1f}", peak, *roofs]
    return f"| {name.removeprefix('step-')} | {' | '.join([*numbers, share.get('copy', ''), share.get('norm', '')])} |"


def _kernel_row(name: str, row: dict[str, Any]) -> str:
    error = f"{row['error']:.1e}" if "error" in row else ""
    against = "; ".join(f"{other} {time:.3f}" for other, time in row.get("against", {}).items())
    return f"| {name} | {row['milliseconds']:.3f} | {against} | {error} | {row.get('path', '')} |"


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of the results")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="small problems, to try the script itself")
    parser.add_argument("--deadline", type=float, default=DEADLINE, help="seconds of the whole")
    parser.add_argument("--slack", type=float, default=1.0, help="how many times as long everything may take")
    parser.add_argument("--only", nargs="+", default=[], help="beginnings of the names of parts")
    parser.add_argument("--packages", type=Path, help="folder with what the machine lacks")
    parser.add_argument("--dry-run", action="store_true", help="print what would run, and run nothing")
    options = parser.parse_args(words)
    options.out = options.out.resolve()
    wanted = [name.rstrip("s") if name == "steps" else name for name in options.only]
    parts = [part for part in PARTS if not wanted or part.name.startswith(tuple(wanted))]
    if not parts:
        parser.error(f"--only {' '.join(options.only)}: expected {', '.join(part.name for part in PARTS)}")
    if options.dry_run:
        for part in parts:
            place = options.out / f"{part.name}.json"
            print(f"{part.limit:4.0f} s  {' '.join(command(part.name, options.device, place, options.tiny))}")
        return 0
    results = measure(parts, options)
    print((options.out / "table.md").read_text())
    return 0 if all(result["ended"] == "done" for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
