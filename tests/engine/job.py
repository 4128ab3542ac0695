"""What several processes run: scenarios by name, answers as JSON from rank 0."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
STEPS, STOP = 7, 4


# With accumulation, in the middle of an epoch; every pair of (precision, processes, workers) is there once.
PAIRS = [("fp32", 1, 0), ("bf16", 1, 2), ("fp32", 2, 2), ("bf16", 2, 0)]


def case(precision: str, workers: int, accumulate: int = 2, **options: Any) -> dict[str, Any]:
    return {"precision": precision, "workers": workers, "accumulate": accumulate, **options}


class DiedHereError(Exception):
    """The process dies here."""


def resumed_run_differs(folder: Path, options: Mapping[str, Any]) -> list[str]:
    """Names of what a run that died after STOP + 1 steps and was resumed has other than the uninterrupted one.

    With 10 images and micro-batches of 4 the stop is in the middle of an epoch.
    """
    from tests.engine.toys import differences, everything, tiny_trainer

    common: dict[str, Any] = {"max_steps": STEPS, "checkpoint_every": STOP, "ema": ema(), **options}
    straight = tiny_trainer(folder / "straight", **common)
    straight.run()
    dying = tiny_trainer(folder / "resumed", **common)
    cycle = dying.run_cycle

    def until_death(measure: bool = False) -> Any:
        if dying.state.step == STOP + 1:
            raise DiedHereError
        return cycle(measure)

    dying.run_cycle = until_death  # type: ignore[method-assign]
    with contextlib.suppress(DiedHereError):
        dying.run()
    resumed = tiny_trainer(folder / "resumed", **common)
    result = resumed.run(resume=True)
    log = [] if dying.runtime.rank or same_log(folder) else ["metrics.jsonl"]
    shape = (
        []
        if result.step == STEPS
        and resumed.state.as_dict() == straight.state.as_dict() | {"seconds": resumed.state.seconds}
        else ["state"]
    )
    return differences(everything(straight), everything(resumed)) + log + shape


def same_log(folder: Path) -> bool:
    def lines(name: str) -> list[dict[str, Any]]:
        texts = (folder / name / "metrics.jsonl").read_text().splitlines()
        timed = {"seconds", "images_per_second", "eta_seconds", "data_wait", "memory"}
        return [{key: value for key, value in json.loads(text).items() if key not in timed} for text in texts]

    return lines("straight") == lines("resumed")


def ema() -> Any:
    from smalti.engine.settings import EMASettings

    return EMASettings(decay=0.9)


def parameters_after_five_steps(folder: Path, options: Mapping[str, Any]) -> dict[str, list[float]]:
    """Parameters and averages in float64 after 5 steps over global batches of 8 images."""
    from tests.engine.toys import tiny_trainer

    trainer = tiny_trainer(
        folder, norm="none", dropout=0.0, max_steps=5, precision="fp64", ema=ema(), validation=None, **options
    )
    trainer.run()
    found = {f"{n}.{k}": p for n, phase in trainer.phases.items() for k, p in phase.named_parameters()}
    assert trainer.ema is not None
    found |= {f"ema.{name}": value for name, value in trainer.ema.state_dict().items()}
    return {name: value.detach().flatten().tolist() for name, value in found.items()}


def validated(folder: Path, options: Mapping[str, Any]) -> dict[str, float]:
    """The objective on held-out images, of which the ranks have unequal shares, before the first step."""
    from smalti.engine.settings import ValidationSettings
    from tests.engine.toys import tiny_trainer

    settings = ValidationSettings(at_start=True)
    trainer = tiny_trainer(folder, precision="fp64", dropout=0.0, max_steps=1, validation=settings, **options)
    trainer.run()
    first = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    return {name: value for name, value in first.items() if name.startswith("val/")}


SCENARIOS: dict[str, Callable[[Path, Mapping[str, Any]], Any]] = {
    "resume": resumed_run_differs,
    "five_steps": parameters_after_five_steps,
    "validated": validated,
}


def launch(folder: Path, questions: list[tuple[str, dict[str, Any]]], processes: int = 2) -> list[Any]:
    """Asks ``questions`` of one group of processes, started without a launcher of torch; the answers of rank 0."""
    (folder / "questions.json").write_text(json.dumps(questions))
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(processes)}
    group |= {"LOCAL_WORLD_SIZE": str(processes)}
    ranks = [
        {**group, "RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {} for rank in range(processes)
    ]
    with contextlib.ExitStack() as stack:
        said = [stack.enter_context((folder / f"said-{rank}").open("w+")) for rank in range(processes)]
        started = [
            subprocess.Popen(
                command(folder, 1), cwd=ROOT, env=environment() | rank, stdout=out, stderr=subprocess.STDOUT
            )
            for rank, out in zip(ranks, said, strict=True)
        ]
        try:
            codes = _ends_of(started)
        finally:
            for process in started:
                process.kill()
                process.wait()
        texts = [Path(out.name).read_text()[-4000:] for out in said]
    assert not any(codes), "\n".join(text for code, text in zip(codes, texts, strict=True) if code)
    answers: list[Any] = json.loads((folder / "answers.json").read_text())
    return answers


def _ends_of(started: "list[subprocess.Popen[bytes]]") -> list[int | None]:
    """The exit codes, of all, or as they are when the first has failed: its neighbours would wait for it."""
    end = time.monotonic() + 900
    while time.monotonic() < end:
        codes = [process.poll() for process in started]
        if None not in codes or any(codes):
            return codes
        time.sleep(0.02)
    raise TimeoutError(f"{len(started)} processes")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def command(folder: Path, processes: int) -> list[str]:
    if processes == 1:
        return [sys.executable, "-m", "tests.engine.job", str(folder)]
    where = ["--nproc_per_node", str(processes), "--master_addr", "127.0.0.1", "--master_port", str(_free_port())]
    return [sys.executable, "-m", "torch.distributed.run", *where, "-m", "tests.engine.job", str(folder)]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


def run_until_signal(folder: Path, options: Mapping[str, Any], lines: int, processes: int = 1) -> int:
    """Trains in other processes, sends SIGTERM once so many lines are logged; the exit code."""
    folder.mkdir(parents=True)
    (folder / "questions.json").write_text(json.dumps([["train", dict(options)]]))
    process = subprocess.Popen(
        command(folder, processes), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    threading.Thread(target=_kill_at, args=(process, folder / "0" / "metrics.jsonl", lines), daemon=True).start()
    return process.wait(timeout=120)


def _kill_at(process: "subprocess.Popen[bytes]", path: Path, lines: int) -> None:
    while process.poll() is None:
        if path.exists() and sum(b'"warning"' not in line for line in path.read_bytes().splitlines()) >= lines:
            process.send_signal(signal.SIGTERM)
            return
        time.sleep(0.002)


def train(folder: Path, options: Mapping[str, Any]) -> int:
    from tests.engine.toys import tiny_trainer

    return tiny_trainer(folder, ema=ema(), **options).run().step


SCENARIOS["train"] = train


def troubled(folder: Path, options: Mapping[str, Any]) -> list[str]:
    """How a run ends on each rank if the last of them is in trouble with its data."""
    from smalti.engine.settings import ValidationSettings
    from smalti.registry import UserError
    from tests.engine.toys import Gradients, tiny_trainer

    class Troubled(Gradients):
        def __getitem__(self, index: int) -> dict[str, Any]:
            if trainer.runtime.rank == trainer.runtime.world_size - 1 and trainer.state.step == 2:
                if options["trouble"] == "fails":
                    raise KeyError("tile")
                threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
                time.sleep(600)
            return super().__getitem__(index)

    places: dict[str, Any] = {options["place"]: Troubled()}
    trainer = tiny_trainer(folder, max_steps=4, validation=ValidationSettings(every=2), **places)
    try:
        result = trainer.run()
        told = f"finished {result.finished}, step {result.step}"
    except UserError as error:
        told = str(error)
    kept = trainer.runtime.on_main(lambda: [trainer.checkpoints.steps(), trainer.state.due])
    return [f"{one}, checkpoints {kept[0]}, due {kept[1]}" for one in trainer.runtime.gather(told)]


SCENARIOS["troubled"] = troubled


def changed(folder: Path, options: Mapping[str, Any]) -> list[str]:
    """How a run goes on on each rank if one of them has lost an image since it was stopped."""
    from smalti.registry import UserError
    from tests.engine.toys import Gradients, tiny_trainer

    first = tiny_trainer(folder, max_steps=2, source=Gradients(10))
    first.run()
    source = Gradients(9 if first.runtime.rank == options["changed_on"] else 10)
    again = tiny_trainer(folder, max_steps=4, source=source)
    try:
        told = f"step {again.run(resume=True, allow_changed_data=options['allowed']).step}"
    except UserError as error:
        told = str(error)
    warned = (folder / "metrics.jsonl").read_text().count("1 lost (gradient 9)")
    return [f"{one}, warned {warned}" for one in again.runtime.gather(told)]


SCENARIOS["changed"] = changed


def gan(folder: Path, options: Mapping[str, Any]) -> dict[str, list[float]]:
    """Parameters in float64 after 3 generator updates of a WGAN with a gradient penalty, and its averages."""
    from tests.gan.toys import parameters_of_tiny_gan

    return parameters_of_tiny_gan(folder, **options)


SCENARIOS["gan"] = gan


def of_tokens(folder: Path, options: Mapping[str, Any]) -> dict[str, list[float]]:
    """Parameters in float64 after 4 steps of a model of tokens, over global batches of 8 items."""
    from tests.generate.toys import parameters_after_four_steps

    return parameters_after_four_steps(folder, options["kind"], batch_size=4)


SCENARIOS["tokens"] = of_tokens


def main() -> None:
    """Answers the questions in a folder."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    questions = json.loads((folder / "questions.json").read_text())
    answers = [SCENARIOS[name](folder / str(number), options) for number, (name, options) in enumerate(questions)]
    if int(os.environ.get("RANK", "0")) == 0:
        (folder / "answers.json").write_text(json.dumps(answers))
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
