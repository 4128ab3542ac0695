"""The doctor, measured on the zoo: are sick recipes named, do cures help, are healthy ones left in peace, at what cost?

python -m benchmarks.doctor                          # all of it; an hour on two cores
python -m benchmarks.doctor --only kl --no-shipped   # recipes of the zoo that hold a word
python -m benchmarks.doctor --adversary-only         # held-out PSNR around the adversary's start, cure by cure
python -m benchmarks.doctor --cost-only              # what a step costs with and without
python -m benchmarks.doctor --runs runs/zoo --page   # runs that are there are read and not trained again;
                                                     # writes the tables into docs/doctor.md
"""

import argparse
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks.doctor_cost import Cost, cost_of
from benchmarks.doctor_cures import Course, Cure, measure
from benchmarks.doctor_page import Measured, write_page
from smalti.config import read_yaml
from smalti.diagnosis import Finding, replay
from smalti.report import read_run
from tests.zoo.keeper import Animal, healthy, shipped, sick

WITHIN = 200  # generator updates in which a sickness must be named
COSTLY = ("tiny-quickstart", "tests/zoo/bases/vq.yaml", "tests/zoo/bases/vqgan.yaml")


@dataclass(frozen=True)
class Job:
    """A recipe to run, and where."""

    animal: Animal
    seed: int
    folder: Path


@dataclass(frozen=True)
class Outcome:
    """What the doctor said of a run."""

    job: Job
    findings: tuple[Finding, ...]
    steps: int
    trouble: str = ""

    @property
    def named_at(self) -> int | None:
        """The step at which what ails it was named; None if it was not in time."""
        steps = [f.step for f in self.findings if f.id == self.job.animal.expect and f.step <= WITHIN]
        return min(steps, default=None)


def run(job: Job) -> Outcome:
    """Trains a recipe, unless its log is there already; what the rules, as they are now, say of the log.

    That this is what they say live is a test of its own (tests/zoo).
    """
    try:
        if not (job.folder / "done").exists():
            shutil.rmtree(job.folder, ignore_errors=True)
            job.animal.run(job.folder, seed=job.seed)
            (job.folder / "done").touch()
            for part in ("checkpoints", "model"):
                shutil.rmtree(job.folder / part, ignore_errors=True)
        told = read_run(job.folder)
        steps = max((record["step"] for record in told.records), default=0)
        recipe = read_yaml(told.recipe, "recipe.yaml") if told.recipe else None
        return Outcome(job, tuple(replay(told.records, recipe).findings), int(steps))
    except Exception as error:
        return Outcome(job, (), 0, f"{type(error).__name__}: {error}")


def jobs_of(animals: Iterable[Animal], seeds: int, folder: Path, only: str) -> list[Job]:
    """A job for each recipe and seed."""
    chosen = [animal for animal in animals if only in animal.name]
    return [Job(one, seed, folder / f"{one.name}-{seed}") for one in chosen for seed in range(seeds)]


def run_all(jobs: Sequence[Job], workers: int) -> list[Outcome]:
    """The outcomes in the order of the jobs, each told as it comes."""
    outcomes = []
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for outcome in pool.imap(run, jobs):
            said = ", ".join(f"{f.id}@{f.step}" for f in outcome.findings) or "-"
            name = f"{outcome.job.animal.name}-{outcome.job.seed}"
            print(f"{name:32} {outcome.job.animal.expect or 'healthy':24} {outcome.trouble or said}", flush=True)
            outcomes.append(outcome)
    return outcomes


def summary(sickly: Sequence[Outcome], cured: Sequence[Outcome], hale: Sequence[Outcome]) -> list[str]:
    """The numbers that matter."""
    named = sum(outcome.named_at is not None for outcome in sickly)
    well = sum(outcome.named_at is None and not outcome.trouble for outcome in cured)
    quiet = sum(not outcome.findings and not outcome.trouble for outcome in cured)
    steps, alarms = sum(outcome.steps for outcome in hale), sum(len(outcome.findings) for outcome in hale)
    lines = []
    if sickly:
        lines.append(f"faults named within {WITHIN} updates: {named} of {len(sickly)} ({named / len(sickly):.1%})")
    if cured:
        lines.append(
            f"no longer named with the cure that the rule recommends: {well} of {len(cured)}, and nothing else said "
            f"of {quiet}"
        )
    if steps:
        rate = 10_000 * alarms / steps
        lines.append(f"false alarms: {alarms} in {steps:,} updates of {len(hale)} healthy runs ({rate:.2f} in 10,000)")
    return lines


def main() -> None:
    """Runs the zoo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="recipes that hold this word")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of healthy recipes of the zoo")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=Path, help="where runs are kept")
    parser.add_argument("--no-shipped", action="store_true", help="leave out the tiny forms of the shipped recipes")
    parser.add_argument("--adversary-seeds", type=int, default=3, help="seeds of the cures for an adversary")
    parser.add_argument("--adversary-only", action="store_true")
    parser.add_argument("--cost-only", action="store_true")
    parser.add_argument("--no-cost", action="store_true")
    parser.add_argument("--page", action="store_true", help="write the tables into docs/doctor.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = measured(given, given.runs or Path(temporary))
    print("\n".join(found.lines))
    if given.page:
        write_page(found)


def measured(given: argparse.Namespace, folder: Path) -> Measured:
    """What was asked for, with runs in ``folder``."""
    sickly: list[Outcome] = []
    cured: list[Outcome] = []
    hale: list[Outcome] = []
    courses: list[tuple[Cure, list[Course]]] = []
    if not (given.cost_only or given.adversary_only):
        ill = list(sick())
        sickly = run_all(jobs_of(ill, 1, folder / "sick", given.only), given.workers)
        treated = [animal.cured() for animal in ill if animal.cure]
        cured = run_all(jobs_of(treated, 1, folder / "cured", given.only), given.workers)
        hale = run_all(jobs_of(healthy(), given.seeds, folder / "healthy", given.only), given.workers)
        if not given.no_shipped:
            hale += run_all(jobs_of(shipped(), 1, folder / "shipped", given.only), given.workers)
    if not given.cost_only and not given.only:
        courses = measure(folder / "adversary", given.adversary_seeds)
    asked = not (given.no_cost or given.adversary_only)
    costs: list[Cost] = [cost_of(recipe) for recipe in COSTLY] if asked else []
    lines = summary(sickly, cured, hale) + [cost.line() for cost in costs]
    return Measured(sickly=sickly, cured=cured, hale=hale, courses=courses, lines=lines)


if __name__ == "__main__":
    main()
