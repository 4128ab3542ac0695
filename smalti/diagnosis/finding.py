"""A finding: what is wrong, how it shows, why it may be so, what to change."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

PAGE = "docs/doctor.md"


@dataclass(kw_only=True)
class Finding:
    """Something that a rule saw in a run.

    Args:
        id: of the rule.
        subject: what it is about: a phase, a codebook, a term, a teacher; empty if the run as a whole.
        step: when it was said.
        evidence: name -> number that shows it.
        cause: what most likely makes it so.
        change: what to change in the recipe.
        over: the step since which it is no longer so; None while it stands.
        note: what else is to be told, such as which term was not finite.
    """

    id: str
    subject: str
    step: int
    evidence: Mapping[str, float] = field(default_factory=dict)
    cause: str = ""
    change: str = ""
    over: int | None = None
    note: str = ""

    @property
    def link(self) -> str:
        """Where it is explained."""
        return f"{PAGE}#{self.id}"

    @property
    def key(self) -> str:
        """What tells findings of one run apart: the rule and its subject."""
        return f"{self.id}/{self.subject}"

    def numbers(self) -> str:
        """The evidence as text.

        >>> Finding(id="plateau", subject="", step=9, evidence={"improvement": 0.0012345}).numbers()
        'improvement 0.001234'
        """
        return ", ".join(f"{name} {value:.4g}" for name, value in self.evidence.items())

    def line(self) -> str:
        """One line for a terminal and for ``metrics.jsonl``."""
        about = f"{self.subject}: " if self.subject else ""
        seen = ", ".join(text for text in (self.note, self.numbers()) if text)
        return f"{self.id}: {about}{self.cause} ({seen}); {self.change} ({self.link})"

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        found = asdict(self) | {"evidence": dict(self.evidence)}
        return found | {"link": self.link}

    def line_of_file(self) -> dict[str, Any]:
        """A line of ``diagnosis.jsonl``: ``step`` is when it was written, ``since`` when it was found."""
        return self.as_dict() | {"step": self.step if self.over is None else self.over, "since": self.step}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Finding":
        """The finding that ``as_dict`` or ``line_of_file`` described; what it does not know is left out.

        Raises:
            TypeError: if it is not of that form.
        """
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        found = cls(**known | ({"step": values["since"]} if "since" in values else {}))
        texts = (found.id, found.subject, found.cause, found.change, found.note)
        steps = (found.step, 0 if found.over is None else found.over)
        if not all(isinstance(text, str) for text in texts) or not all(isinstance(step, int) for step in steps):
            raise TypeError("id, subject, cause, change and note are texts, step and over whole numbers")
        if not isinstance(found.evidence, Mapping):
            raise TypeError("evidence is a mapping of numbers")
        found.evidence = {k: v for k, v in found.evidence.items() if isinstance(v, (int, float))}
        return found
