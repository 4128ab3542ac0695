"""Cures for the shock of an adversary, measured: held-out PSNR around its start, with each and without."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from smalti.report import read_run
from tests.zoo.keeper import Animal

STEPS, START, AROUND = 200, 80, 60
WEIGHT = 30.0
HELD_OUT = "[astronaut, chelsea, coffee, rocket]"
PHOTOS = f"{{source: {{type: photos, include: {HELD_OUT}}}, transform: {{size: 128, crop: center}}, batch_size: 4}}"
SETTINGS = (
    f"engine.max_steps={STEPS}",
    f"data.source.exclude={HELD_OUT}",
    f"validation={{data: {PHOTOS}, every: 10, metrics: [psnr]}}",
)
PLATEAU = "{when: plateau, window: 20, improvement: 0.02, after: 40, latest: 120}"


@dataclass(frozen=True, kw_only=True)
class Cure:
    """One way to let the adversary in.

    Args:
        name: in words.
        generator: options of the generator's adversarial term; None: there is no adversary.
        discriminator: the start of the discriminator's term.
    """

    name: str
    generator: str | None
    discriminator: str = str(START)

    def overrides(self) -> tuple[str, ...]:
        """What is set on the zoo's ``vqgan``."""
        if self.generator is None:
            return (
                "objective.generator.adversarial=null",
                "objective.discriminator=null",
                "discriminator=null",
                "optim.discriminator=null",
            )
        return (
            f"objective.generator.adversarial={{type: hinge, {self.generator}}}",
            f"objective.discriminator.adversarial.start={self.discriminator}",
        )


SICK = f"weight: {WEIGHT}, start: {START}"
CURES = (
    Cure(name="sick: all at once, discriminator untrained", generator=SICK),
    Cure(name="discriminator alone for 40 updates", generator=SICK, discriminator=str(START - 40)),
    Cure(name="discriminator alone for 80 updates", generator=SICK, discriminator="0"),
    Cure(name="ramp: 100", generator=f"{SICK}, ramp: 100"),
    Cure(
        name="start: {when: plateau} for both", generator=f"weight: {WEIGHT}, start: {PLATEAU}", discriminator=PLATEAU
    ),
    Cure(name="a tenth of the weight", generator=f"weight: {WEIGHT / 10}, start: {START}"),
    Cure(name="adaptive, weight: 0.25", generator=f"weight: 0.25, start: {START}, adaptive: {{reference: [l1]}}"),
    Cure(
        name="adaptive, ramp: 100, discriminator alone for 40",
        generator=f"weight: 0.25, start: {START}, ramp: 100, adaptive: {{reference: [l1]}}",
        discriminator=str(START - 40),
    ),
    Cure(name="no adversary", generator=None),
)


@dataclass(frozen=True, kw_only=True)
class Course:
    """Held-out PSNR of a run, in dB.

    Args:
        before: at the last validation before the generator listens; of a run without an adversary, at ``START``.
        least: the least of the next ``AROUND`` updates.
        end: of the run.
        said: what the doctor named of the adversary.
    """

    before: float
    least: float
    end: float
    said: tuple[str, ...]

    @property
    def drop(self) -> float:
        """What was lost when the adversary came; negative if nothing was."""
        return self.before - self.least


def course_of(cure: Cure, folder: Path, seed: int) -> Course:
    """Trains the zoo's ``vqgan`` with a cure, unless its run is there; how held-out PSNR went."""
    animal = Animal(name=cure.name, base="vqgan", overrides=(*SETTINGS, *cure.overrides()), expect=None)
    if not (folder / "evaluation.json").is_file():
        animal.run(folder, seed=seed)
    run = read_run(folder)
    steps, psnr = run.series("val/psnr")
    heard, weights = run.series("train/generator/adversarial/weight")
    starts = [step for step, weight in zip(heard, weights, strict=True) if weight > 0.0]
    start = next(iter(starts), START + 10)
    before = [value for step, value in zip(steps, psnr, strict=True) if step < start]
    after = [value for step, value in zip(steps, psnr, strict=True) if start <= step <= start + AROUND]
    said = sorted({str(record["warning"]).partition(":")[0] for record in run.records if "warning" in record})
    return Course(before=before[-1], least=min(after), end=psnr[-1], said=tuple(said))


def measure(folder: Path, seeds: int) -> list[tuple[Cure, list[Course]]]:
    """All cures, a few seeds each, told as they come."""
    found = []
    for number, cure in enumerate(CURES):
        courses = [course_of(cure, folder / f"{number}-{seed}", seed) for seed in range(seeds)]
        print(row(cure, courses), flush=True)
        found.append((cure, courses))
    return found


def row(cure: Cure, courses: Sequence[Course]) -> str:
    """A row of the table."""
    shocked = sum("adversary-shock" in course.said for course in courses)
    drops, ends = [course.drop for course in courses], [course.end for course in courses]
    return f"| {cure.name} | {_spread(drops)} | {_spread(ends)} | {shocked} of {len(courses)} |"


def _spread(values: Sequence[float]) -> str:
    """The median, and least and largest."""
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def section(found: Iterable[tuple[Cure, Sequence[Course]]]) -> str:
    """The table."""
    head = "| how the adversary comes | lost when it came, dB | PSNR at the end, dB | `adversary-shock` said |"
    return "\n".join([head, "|---|---|---|---|", *(row(cure, courses) for cure, courses in found)])
