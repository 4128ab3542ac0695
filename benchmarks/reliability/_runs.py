"""A small run that is started as a user starts it, and what it must have left when it is done."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RECIPE = """
model: {type: mlp_generator, image_size: 8, image_channels: 1, latent_size: 16, widths: [32], norm: none}
discriminator: {type: mlp, image_size: 8, in_channels: 1, widths: [32]}
objective:
  generator: {adversarial: {type: wgan}}
  discriminator: {adversarial: {type: wgan}, penalty: {type: gradient_penalty, weight: 1.0, every: 3}}
data: {source: {type: digits, part: train}, transform: {size: 8, crop: center}, batch_size: 8, workers: 0}
optim: {generator: {lr: 1.0e-3}, discriminator: {lr: 1.0e-3, lr_schedule: cosine, lr_steps: 120}}
validation:
  data: {source: {type: digits, part: held_out}, batch_size: 100}
  every: 9
  metrics: {sliced_wasserstein: {type: sliced_wasserstein, reference: {type: digits, part: train}}}
  monitor: sliced_wasserstein
  mode: min
engine: {max_steps: 120, batches: fresh, ema: {decay: 0.9}, samples: 4, log_every: 2, sample_every: 11,
         checkpoint_every: 5, device: cpu}
cycle: [discriminator*2, generator]
"""
TIMES = ("seconds", "images_per_second", "eta_seconds", "data_wait", "memory")


def command(recipe: Path, out: Path, *more: str, processes: int = 1) -> list[str]:
    """The command line that trains ``recipe`` into ``out``."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    return [sys.executable, *launcher, "-m", "smalti", "train", str(recipe), "--out", str(out), *more]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def start(words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Starts a command in a process group of its own, its output in ``log``."""
    with log.open("ab") as file:
        return subprocess.Popen(words, stdout=file, stderr=file, env=environment(), start_new_session=True)


def wait_for_lines(process: subprocess.Popen[bytes], path: Path, count: int) -> None:
    """Returns when the log of a run has ``count`` lines, or the run has ended."""
    while process.poll() is None and lines_of(path) < count:
        time.sleep(0.002)


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def kill_group(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
    """Signals the process and all its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    process.wait()


def left_by(out: Path) -> dict[str, Any]:
    """What a finished run is: hashes of its weights and pictures, its log and its evaluation without the times."""
    log = [without_times(json.loads(line)) for line in (out / "metrics.jsonl").read_text().splitlines()]
    files = [*sorted((out / "model").iterdir()), *sorted((out / "samples").iterdir())]
    hashes = {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    evaluation = without_times(json.loads((out / "evaluation.json").read_text()))
    return {"log": log, "evaluation": evaluation, **hashes}


def without_times(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in TIMES}


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of what is not equal."""
    return [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]
