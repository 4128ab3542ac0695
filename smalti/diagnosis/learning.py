"""Rules about learning: rates, gradients, losses over time, averages."""

import math
from collections.abc import Iterator
from itertools import pairwise

from smalti.diagnosis.history import View, holds, middle
from smalti.diagnosis.rule import Rule, Sighting

FIT = "train/generator/fit"
SETTLED = 20  # updates after which a rate is judged
LONG = 10  # log steps after which a loss that stands still is no chance
FEW = 2  # images of a micro-batch, to a batch normalisation
OFTEN = 5  # log steps whose median says what is usual of a rate that jumps
NEIGHBOURS = 3  # log steps before a spike, or validations, whose median is what is usual there


def _spikes(view: View) -> Iterator[Sighting]:
    records = [record for record in view.history.recent if FIT in record and record["step"] > SETTLED]
    tall: list[float] = []
    for index in range(NEIGHBOURS, len(records)):
        usual = middle([record[FIT] for record in records[index - NEIGHBOURS : index]])
        ratio = records[index][f"{FIT}_max"] / usual if usual > 0 else 0.0
        tall += [ratio] if ratio > 5.0 else []
    if 2 <= len(tall) <= len(records) // 2:
        yield Sighting(evidence={"spikes": len(tall), "tallest over the usual": max(tall)})


def _plateau(view: View) -> Iterator[Sighting]:
    began, best, rate = view.began(FIT), view.low(FIT), view("train/generator/update_ratio")
    if view.facts.is_fine_tuned or view.step < view.facts.warmup + 100 or view.seen < 8:
        return
    if began > 0 and (best > 0.97 * began or (rate < 1e-5 and view.is_at_full_rate("train/generator/"))):
        evidence = {"at first": began, "best": best, "relative change of weights an update": rate}
        yield Sighting(evidence=evidence)


def _late(view: View) -> Iterator[Sighting]:
    length = view.facts.number("engine.max_steps")
    for player, options in (view.facts.get("optim") or {}).items():
        warmup = options.get("warmup") if isinstance(options, dict) else None
        if isinstance(warmup, int) and 0 < 0.5 * length < warmup:
            yield Sighting(subject=player, evidence={"warmup": float(warmup), "updates of the run": length})


def _hasty(view: View, at: str) -> bool:
    """Whether weights of a phase change by over a tenth in an update, or by over 7 % in most."""
    records = [record for record in view.history.recent if record["step"] >= SETTLED]
    rates = [record[f"{at}update_ratio"] for record in records if f"{at}update_ratio" in record][-OFTEN:]
    return (bool(rates) and rates[-1] > 0.1) or (len(rates) == OFTEN and middle(rates) > 0.07)


def _restless(view: View) -> bool:
    """Whether weights change by over 3 % an update for long, and the loss gets no better by it."""
    rates, fits = view.latest("train/generator/update_ratio", LONG), view.latest(FIT, LONG)
    if min(len(fits), len(rates)) < LONG or view.step < view.facts.warmup + 100:
        return False
    return min(rates) > 0.03 and min(fits[LONG // 2 :]) > 0.98 * min(fits[: LONG // 2]) > 0


def _too_fast(view: View) -> Iterator[Sighting]:
    now, best, first = view(FIT), view.low(FIT), view.history.first[0].get(FIT, math.nan)
    rate, steepest = view("train/generator/update_ratio"), view.high("train/generator/update_ratio")
    thrown = steepest > 0.1 and now > 3.0 * first > 0
    undone = view.step >= SETTLED and rate > 0.01 and now > 2.0 * best > 0 and now > 0.9 * first
    if thrown or undone or _hasty(view, "train/generator/") or _restless(view):
        evidence = {"relative change of weights an update": rate, "loss": now, "best": best, "at first": first}
        yield Sighting(subject="generator", evidence=evidence)
    for phase, at in view.critics:
        if _hasty(view, at) and not view(f"{at}clipped") >= 0.0:  # a clipped weight does not go where its update says
            evidence = {"relative change of weights an update": view(f"{at}update_ratio"), "loss": view(f"{at}total")}
            yield Sighting(subject=phase, evidence=evidence)


def _few(view: View) -> Iterator[Sighting]:
    size = view.facts.number("data.batch_size", math.nan)
    for name, layers in view.between("train/", "/batch_norm"):
        if size <= FEW:
            yield Sighting(subject=name, evidence={"images": size, "batch normalisations": layers})


def _clipped(view: View) -> Iterator[Sighting]:
    for name, depth in view.between("train/", "/clip_depth"):
        if depth > 10.0 and holds(view.latest(f"train/{name}/clip_active", 5), lambda value: value >= 1.0, 5):
            evidence = {"share of updates clipped": view(f"train/{name}/clip_active"), "norm / clip": depth}
            yield Sighting(subject=name, evidence=evidence)


def _overfit(view: View) -> Iterator[Sighting]:
    values = [record["val/generator/fit"] for record in view.history.measured if "val/generator/fit" in record]
    if len(values) < 2 + NEIGHBOURS or not min(values) > 0:
        return
    best, now, trained = min(values[:-NEIGHBOURS]), min(values[-NEIGHBOURS:]), view(FIT)
    noise = middle([abs(later - value) for value, later in pairwise(values)])
    since = [record[FIT] for record in view.history.recent if FIT in record]
    rises = now > max(1.1 * best, best + 3.0 * noise) and trained <= 1.02 * min(since) * 1.1 and trained < now
    if rises or _by_heart(view, best, now):
        yield Sighting(evidence={"held-out": now, "at its best": best, "in training": trained})


def _by_heart(view: View, best: float, now: float) -> bool:
    """Whether the held-out loss stands still while that of training halves, far below it."""
    began = [record["step"] for record in view.history.measured if "val/generator/fit" in record][-NEIGHBOURS - 1]
    before = [record[FIT] for record in view.history.recent if FIT in record and record["step"] <= began][-1:]
    return 0.0 < view(FIT) < 0.5 * min(now, sum(before)) and now > 0.95 * best


def _lagging(view: View) -> Iterator[Sighting]:
    left = view.facts.number("engine.max_steps") - view.step
    share = view("train/ema/initial") * view("train/ema/decay") ** left if left >= 0 else math.nan
    if share > 0.1 and not view.facts.is_fine_tuned:
        evidence = {
            "share of initial weights at the end": share,
            "distance of the averages": view("train/ema/distance"),
        }
        yield Sighting(evidence=evidence)


RULES = (
    Rule(
        id="loss-spikes",
        title="Loss spikes",
        look=_spikes,
        patience=1,
        event=True,
        threshold="in at least two of the latest log steps (and at most half of them) a single update's loss was five "
        "times the median of the three log steps before",
        cause="single batches are far from the others, or single updates overshoot",
        change="optim.generator.clip: 1.0, a lower lr, betas: [0.9, 0.95]; look for images that do not belong",
    ),
    Rule(
        id="plateau",
        title="A plateau from the start",
        look=_plateau,
        threshold="100 updates after the warm-up the terms that compare with data never were more than 3 % better than "
        "at first, or weights change by less than 1e-5 of their size in an update at the full learning rate",
        cause="nothing is learned: the learning rate is too small (weights change by less than 1e-4 of their size an "
        "update) or far too large (more than 1e-2), or what is trained cannot reach the loss",
        change="optim.generator.lr: ten times larger or smaller, by what the weights' change says; optim.generator."
        "warmup shorter; model.freeze",
    ),
    Rule(
        id="rate-too-high",
        title="Learning rate too high for the batch",
        look=_too_fast,
        patience=2,
        span=10,
        threshold="weights change by over a tenth of their size in an update (healthy runs of the zoo: at most 4.4 % "
        "after 20 updates), or by over 7 % in most of five log steps; or by over a hundredth while the loss is twice "
        "its best and no better than at first; or the loss is three times that of the untrained network, after an "
        "update that changed over a tenth; or for ten log steps weights changed by over 3 % each time, and the later "
        "five were not 2 % better than those before",
        cause="updates overshoot: what one batch teaches, the next one undoes",
        change="optim.<phase>.lr: a third of it, optim.<phase>.warmup: 100, or a larger data.batch_size",
    ),
    Rule(
        id="warmup-too-long",
        title="The warm-up takes the run",
        look=_late,
        threshold="more than half of the run's updates are warm-up: the mean rate is below three quarters of lr, and "
        "usual are 0.1 to 10 %",
        cause="warmup counts updates, not epochs or images, or it was written for a longer run: it is hardly trained "
        "at the rate that lr says",
        change="optim.<phase>.warmup: a twentieth of engine.max_steps, or a longer run",
    ),
    Rule(
        id="clip-always",
        title="Gradient clipping always active",
        look=_clipped,
        threshold="every update of five log intervals was clipped, to less than a tenth",
        cause="clip is far below the usual norm: only the direction of gradients is left, and large and small errors "
        "weigh the same",
        change="optim.<phase>.clip: about the usual gradient_norm of the log",
    ),
    Rule(
        id="batch-norm-few",
        title="Batch normalisation over one or two images",
        look=_few,
        threshold="a batch normalisation that is trained on micro-batches of one or two images: what an image becomes "
        "then depends on its neighbour, and not as in evaluation (Wu and He, arXiv:1803.08494: their error rises by a "
        "tenth from 32 to 2 images)",
        cause="means and deviations of one or two images are noise: training and evaluation are two networks",
        change="norm: group in encoder, decoder and discriminator, or a larger data.batch_size (accumulate is none)",
    ),
    Rule(
        id="overfit",
        title="Validation drifts from training",
        look=_overfit,
        patience=2,
        threshold="the held-out loss of three validations in a row is a tenth above its best before them, and "
        "above it by more than three times what it usually changes from one to the next, while that of "
        "training is at its best; or the best of these three is not 5 % better than the best before, while the loss of "
        "training fell by half since the validation before them, and to less than half of the held-out one",
        cause="the model learns its images by heart",
        change="more images, data.transform: {crop: random, flip: true}, a smaller model, weight_decay; validation."
        "monitor keeps the best",
    ),
    Rule(
        id="ema-lags",
        title="Averaged weights lag behind",
        look=_lagging,
        threshold="at the end of the run over a tenth of the average would still be the weights before training (the "
        "product of decays so far, the present one from here on)",
        cause="the average is longer than the run: what is validated and saved is hardly trained",
        change="engine.ema: warmup: true, a smaller decay (half-life log(0.5) / log(decay) updates), or half_life with "
        "ramp",
    ),
)
