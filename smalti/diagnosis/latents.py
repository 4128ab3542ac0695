"""Rules about the Gaussian over latents."""

import math
from collections.abc import Iterator

from smalti.diagnosis.history import View
from smalti.diagnosis.rule import Rule, Sighting

FINEST = 0.1 * 2 / 255  # a tenth of a grey level of images in [-1, 1]: no image of 8 bits is known better
COARSEST = 10 * 2.0  # ten times the whole range
MANTISSA = 24 * math.log(2)  # nats: all that a float32 can tell apart at one scale


def _collapsed(view: View) -> Iterator[Sighting]:
    kl, active = view("train/posterior/kl"), view("train/posterior/active")
    if active < 0.1 and view.step >= 20:
        yield Sighting(evidence={"channels in use": active, "KL of a number (nats)": kl})


def _exploded(view: View) -> Iterator[Sighting]:
    kl = view("train/posterior/kl")
    if kl > MANTISSA:
        yield Sighting(evidence={"KL of a number (nats)": kl})


def _scaled(view: View) -> Iterator[Sighting]:
    for name, scale in view.between("train/generator/", "/log_scale"):
        if not math.log(FINEST) < scale < math.log(COARSEST):
            yield Sighting(subject=f"term {name}", evidence={"log-scale": scale})


RULES = (
    Rule(
        id="posterior-collapse",
        title="Posterior collapse",
        look=_collapsed,
        threshold="less than a tenth of the latent channels carry more than 0.01 nats a number (the bound for an "
        "active unit of Burda et al., arXiv:1509.00519, as a KL)",
        cause="the KL term has won: the latents are noise, and the decoder ignores them",
        change="objective.generator.<kl>.weight: lower (1.0e-6 for reduction: batch_sum), or ramp: over a tenth of the "
        "run",
    ),
    Rule(
        id="kl-explosion",
        title="KL explosion",
        look=_exploded,
        threshold="more than 24 bits (16.6 nats) for every latent number, as many as a float32 has: more are no use",
        cause="nothing holds the latents near the prior: their scale runs away",
        change="objective.generator: a kl term, or a larger weight of it; a lower optim.generator.lr",
    ),
    Rule(
        id="scale-diverges",
        title="The scale of the likelihood runs away",
        look=_scaled,
        threshold="the log-scale s of a likelihood is below that of a tenth of a grey level (-7.2), which no image of "
        "8 bits is known to, or above that of ten times the range of images (3.0)",
        cause="the scale has become so small that a likelihood's gradient, which is divided by it, drowns every other "
        "term (images that can be met exactly, as empty ones are), or so large that the likelihood says nothing",
        change="objective.generator.<term>: scale: fixed, or analytic; a lower optim.generator.lr; look for images of "
        "one colour",
    ),
)
