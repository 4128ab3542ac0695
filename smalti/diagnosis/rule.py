"""A rule: an id, how it looks at what was logged, and what it says if it sees something."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from smalti.diagnosis.history import View


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What a rule sees at one log step.

    Args:
        subject: what looks bad: a phase, a codebook, a term; empty if the run as a whole.
        evidence: name -> number that shows it.
        note: what cannot be said in numbers.
    """

    subject: str = ""
    evidence: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A diagnosis, as a row of a table.

    Args:
        id: what it is called everywhere: in the log, on the page, in ``docs/doctor.md``.
        title: in words.
        look: the sightings at a log step; works on logged numbers alone, and a number that is missing is nan, with
            which no comparison holds.
        threshold: the condition in words, with the reason for its number.
        cause: what most likely makes it so.
        change: what to change, with the names of options.
        patience: log steps in a row at which it must look bad before it is said, and half of which it must look well
            (at least two) before it counts as over.
        span: generator updates over which it must look bad, too.
        event: something that happened, which is never over.
    """

    id: str
    title: str
    look: Callable[[View], Iterable[Sighting]]
    threshold: str
    cause: str
    change: str
    patience: int = 3
    span: int = 0
    event: bool = False
