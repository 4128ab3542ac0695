"""All rules."""

from collections.abc import Iterator

from smalti.diagnosis import adversary, codes, data, latents, learning, machine, tokens
from smalti.diagnosis.rule import Rule

RULES: tuple[Rule, ...] = (
    *data.RULES,
    *learning.RULES,
    *codes.RULES,
    *tokens.RULES,
    *latents.RULES,
    *adversary.RULES,
    *machine.RULES,
)
NOT_FINITE = Rule(
    id="not-finite",
    title="A number is not finite",
    look=lambda view: iter(()),  # told by the lines of skipped updates
    patience=1,
    event=True,
    threshold="an update was skipped, because a latent, a term or a gradient was not finite; the first one that was "
    "not is named",
    cause="a number became infinite or nan there",
    change="a lower lr, optim.<phase>.clip, precision: fp32 for what is named, eps in its options",
)


def all_rules() -> Iterator[Rule]:
    """Every rule, with the one that reads skipped updates."""
    yield from (*RULES, NOT_FINITE)
