"""Rules about a discriminator or critic, and the game with it."""

import math
from collections.abc import Iterator

from smalti.diagnosis.history import View, mean, middle
from smalti.diagnosis.rule import Rule, Sighting

PULL = "train/generator/gradient_norm/adversarial"
COLLAPSED = 5  # log steps over which distances of images are averaged: a batch has few
ALIKE = 0.06  # distance of two made images over that of a made and a real one
FIT = "train/generator/fit"


def _starved(view: View) -> Iterator[Sighting]:
    for phase, at in view.critics:
        clipped, slope = view(f"{at}clipped"), view(f"{at}critic/slope_max")
        if clipped > 0.5 or (clipped >= 0.0 and slope < 1e-3):
            yield Sighting(subject=phase, evidence={"share of weights at the bound": clipped, "largest slope": slope})


def _dead(view: View) -> Iterator[Sighting]:
    for phase, at in view.critics:
        real, fake, slope = (view(at + name) for name in ("logits_real", "logits_fake", "critic/slope_max"))
        clipped = view(f"{at}clipped") >= 0.0
        silent = max(abs(real), abs(fake)) < 1e-3 or slope < 1e-6
        if (silent or _stands_still(view, at)) and not clipped:
            change = view(f"{at}update_ratio")
            evidence = {"logits of real images": real, "of made ones": fake, "largest slope": slope}
            evidence |= {"relative change of weights an update": change}
            yield Sighting(subject=phase, evidence=evidence)
    if view(PULL) > 0.0 and not view.critics:  # the generator listens, and nobody trains who speaks
        yield Sighting(subject="discriminator", evidence={"its pull at the generator's last layer": view(PULL)})


def _stands_still(view: View, at: str) -> bool:
    """Whether a network hardly changes, though its rate is not at the end of a schedule."""
    return view(f"{at}update_ratio") < 1e-5 and view.is_at_full_rate(at)


def _wins(view: View) -> Iterator[Sighting]:
    for phase, at in view.critics:
        loss = view(f"{at}total")
        right = min(view(f"{at}critic/accuracy_real"), view(f"{at}critic/accuracy_fake"))
        most = view.high(f"{at}total")
        if 0.0 <= loss < max(0.02, 0.3 * most) and right > 0.99:
            evidence = {"loss": loss, "at its largest": most, "share of right answers": right}
            yield Sighting(subject=phase, evidence=evidence)


def _collapsed(view: View) -> Iterator[Sighting]:
    if math.isfinite(view(FIT)):
        return  # what an autoencoder makes is as varied as what it sees
    for phase, at in view.critics:
        within, apart = (view.latest(f"{at}critic/{name}", COLLAPSED) for name in ("diversity", "apart"))
        known = min(len(within), len(apart)) == COLLAPSED and f"{at}critic/apart" in view.now
        if known and mean(within) < ALIKE * mean(apart):
            evidence = {
                "distance of two made images over that of two real ones": mean(within),
                "distance of a made and a real one over the same": mean(apart),
            }
            yield Sighting(subject=phase, evidence=evidence)


def _shocked(view: View) -> Iterator[Sighting]:
    records = view.history.recent
    start = next((i for i in range(1, len(records)) if _listens(records, i)), None)
    if start is None or len(records) - start > 8:
        return
    before = middle([record[FIT] for record in records[max(0, start - 8) : start] if FIT in record])
    after = mean([record[FIT] for record in records[start + 1 :] if FIT in record][:3])
    if after > 1.5 * before > 0:
        yield Sighting(evidence={"reconstruction before": before, "after": after, "start": records[start]["step"]})


def _listens(records: list[dict[str, float]], index: int) -> bool:
    """Whether the generator began to listen to the adversary at this record."""
    return records[index].get(PULL, 0.0) > 0.0 == records[index - 1].get(PULL, -1.0)


def _clamped(view: View) -> Iterator[Sighting]:
    for name, clamped in view.between("train/generator/", "/clamped"):
        if clamped >= 1.0:
            factor = view(f"train/generator/{name}/adaptive")
            yield Sighting(subject=f"term {name}", evidence={"adaptive factor": factor})


def _normalised(view: View) -> Iterator[Sighting]:
    for phase, at in view.critics:
        if view(f"{at}batch_norm_under_slope") > 0:
            yield Sighting(subject=phase, evidence={"batch normalisations": view(f"{at}batch_norm_under_slope")})


RULES = (
    Rule(
        id="discriminator-wins",
        title="The discriminator wins",
        look=_wins,
        patience=5,
        span=100,
        threshold="always right (over 99 % of real and of made images) with a loss below 0.02, or below 0.3 of its "
        "largest, for 100 updates and five log steps in a row (healthy runs of the zoo: 70 updates, early); a loss "
        "that may be negative, as Wasserstein's, says nothing of this",
        cause="the discriminator wins: it is always right and its loss is low, so the generator learns little",
        change="raise optim.generator.lr or lower optim.discriminator.lr, penalise its slope (a term r1 or "
        "gradient_penalty under objective.discriminator), or augment its images (discriminator: {type: ada} or "
        "diff_augment)",
    ),
    Rule(
        id="discriminator-dead",
        title="The discriminator says nothing",
        look=_dead,
        patience=5,
        threshold="mean logits below 0.001, a slope below 0.000001, or weights that change by less than 1e-5 of their "
        "size in an update (healthy runs of the zoo: at least 6e-4), or no update at all while the generator listens, "
        "five log steps in a row",
        cause="the discriminator says nothing: its logits are 0, the same whatever the image, or it does not learn, as "
        "before the start of its terms",
        change="raise optim.discriminator.lr, or let it train before the generator listens (start of the generator's "
        "adversarial term after that of the discriminator's)",
    ),
    Rule(
        id="critic-starved",
        title="Weight clipping starves the critic",
        look=_starved,
        threshold="over half of the weights at the bound, or a slope below 0.001",
        cause="weight clipping starves the generator: over half of the critic's weights are at the bound, or its slope "
        "is below 1e-3",
        change="raise weight_clip in the cycle, or take a gradient penalty in its place (type: gradient_penalty)",
    ),
    Rule(
        id="mode-collapse",
        title="Mode collapse",
        look=_collapsed,
        threshold=f"two made images are less than {ALIKE} as far apart as a made and a real one, on average over "
        f"{COLLAPSED} log steps (healthy runs: at least 0.10, at their start; collapsed ones: 0.025 to 0.045): an "
        "untrained generator's images are alike, too, but near the mean of real ones, those of a collapsed one are "
        "far from all; not where images are reconstructed, which are blurred at first and so alike",
        cause="the made images hardly differ from each other (mode collapse)",
        change="go back to an earlier checkpoint and lower optim.generator.lr, or give the critic more updates (cycle)",
    ),
    Rule(
        id="adversary-shock",
        title="Shock at the adversary's start",
        look=_shocked,
        patience=1,
        event=True,
        threshold="over the three log steps after the generator begins to listen, the terms that compare with data are "
        "half as large again as before",
        cause="the adversary arrives all at once and undoes what was learned",
        change="ramp: 1000 for the adversarial term, a smaller weight or an adaptive one; a start of the "
        "discriminator's terms before that of the generator's; start: {when: plateau}",
    ),
    Rule(
        id="adaptive-clamped",
        title="The adaptive weight is at its clamp",
        look=_clamped,
        threshold="the ratio of gradients above the clamp, three log steps in a row",
        cause="the adversary's gradient is next to nothing beside that of the references, so that the factor is "
        "whatever clamp says",
        change="a discriminator that says more (its lr, an earlier start of its terms), a fixed weight in place of "
        "adaptive, or adaptive.clamp: 10000, as usual, if it is smaller",
    ),
    Rule(
        id="batch-norm-under-slope",
        title="Batch normalisation under a slope penalty",
        look=_normalised,
        patience=1,
        threshold="a term asks for the discriminator's slope, and it holds a batch normalisation",
        cause="the slope is asked for single samples, and through a batch normalisation every sample depends on all "
        "others",
        change="discriminator: norm: none or norm: group",
    ),
)
