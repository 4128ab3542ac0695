"""Each rule speaks where its threshold is passed, names the number, and is silent on the other side of it."""

from collections.abc import Mapping
from typing import Any

import pytest

from smalti.diagnosis import RULES, Finding, all_rules, replay
from tests.diagnosis.runs import BOOK, HEALTHY, RECIPE, D, G, Value, log_of

Recipe = Mapping[str, Any]
# a recipe in place of the healthy one, for the rules that read it
RECIPES: Mapping[str, tuple[Recipe, Recipe]] = {
    "warmup-too-long": (
        {"engine": {"max_steps": 1000}, "optim": {"generator": {"warmup": 600}}},
        {"engine": {"max_steps": 1000}, "optim": {"generator": {"warmup": 400}, "discriminator": None}},
    ),
    "batch-norm-few": ({"data": {"batch_size": 2}}, {"data": {"batch_size": 3}}),
}
UNTRAINED = {name: None for name in HEALTHY if name.startswith(D)}  # the discriminator's turn has not come
GAN = {f"{G}{name}": None for name in ("fit", "fit_max", "l1/weighted", "near/weighted", "spread/weighted")}
Changes = Mapping[str, Value | None]


def late(before: float, after: float, step: int = 80) -> Any:
    return lambda now: before if now < step else after


def averaged(decay: float) -> Changes:
    return {"train/ema/initial": lambda step: decay**step, "train/ema/decay": decay}


# rule -> what is set on a healthy log so that it must speak, and what comes near without reaching it
CASES: list[tuple[str, Changes, Changes]] = [
    ("data-range", {"train/image/max": 1.6}, {"train/image/max": 1.4}),
    ("data-range", {"train/image/min": 0.0}, {"train/image/min": -0.01}),
    ("discriminator-range", {"train/image/max": 255.0}, {"train/image/max": 255.0, f"{D}logits_real": None}),
    ("constant-images", {"train/image/constant": 0.6}, {"train/image/constant": 0.4}),
    ("constant-images", {"train/image/difference": 0.01}, {"train/image/difference": 0.03}),
    ("constant-labels", {"train/label/max": 0.0}, {"train/label/max": 0.0, "train/label/seen": 400.0}),
    ("grey-images", {"train/image/colour": 0.001}, {"train/image/colour": 0.02}),
    ("grey-images", {"train/image/colour": 0.001}, {"train/image/colour": lambda step: 0.1 * (step == 10)}),
    ("vocabulary-unused", {"train/tokens/look/highest": 31.0}, {"train/tokens/look/highest": 32.0}),
    (
        "vocabulary-unused",
        {"train/tokens/look/highest": 15.0, "train/tokens/look/different": 16.0},
        {"train/tokens/look/highest": 15.0, "train/tokens/look/different": 9.0},  # too few to tell
    ),
    ("vocabulary-unused", {"train/tokens/look/distinct": 0.06}, {"train/tokens/look/distinct": 0.12}),
    ("constant-tokens", {"train/tokens/look/agree": 1.0}, {"train/tokens/look/agree": 0.95}),
    ("scale-diverges", {f"{G}likelihood/log_scale": -8.0}, {f"{G}likelihood/log_scale": -7.0}),
    ("scale-diverges", {f"{G}likelihood/log_scale": 4.0}, {f"{G}likelihood/log_scale": 2.0}),
    ("warmup-too-long", {}, {}),
    ("batch-norm-few", {}, {}),
    (
        "rate-too-high",
        {f"{G}update_ratio": 0.05, f"{G}fit": 0.8},
        {f"{G}update_ratio": 0.05, f"{G}fit": lambda step: 0.99**step},
    ),
    ("teacher-constant", {"train/teacher/look/variation": 1e-4}, {"train/teacher/look/variation": 2e-3}),
    (
        "loss-spikes",
        {f"{G}fit_max": lambda step: 9.0 if step in {90, 150} else 0.5},
        {f"{G}fit_max": lambda step: 9.0 if step == 90 else 0.5},
    ),
    ("plateau", {f"{G}fit": lambda step: 1.0 - 0.0001 * step}, {f"{G}fit": lambda step: 1.0 - 0.0004 * step}),
    (  # noise of batches is no progress where weights stand still, but at the end of a schedule they do
        "plateau",
        {f"{G}update_ratio": 1e-6, f"{G}learning_rate": 1e-7},
        {f"{G}update_ratio": late(1e-3, 1e-6), f"{G}learning_rate": late(1e-4, 1e-7)},
    ),
    ("rate-too-high", {f"{G}update_ratio": 0.3}, {f"{G}update_ratio": 0.05}),
    (  # in most updates, and in a few
        "rate-too-high",
        {f"{G}update_ratio": lambda step: 0.08 if step % 30 else 0.01},
        {f"{G}update_ratio": lambda step: 0.01 if step % 30 else 0.08},
    ),
    ("rate-too-high", {f"{D}update_ratio": 0.3}, {f"{D}update_ratio": 0.05}),
    (
        "rate-too-high",
        {f"{G}update_ratio": 0.05, f"{G}fit": late(0.4, 1.0)},
        {f"{G}update_ratio": 0.005, f"{G}fit": late(0.4, 1.0)},
    ),
    ("clip-always", {f"{G}clip_depth": 30.0}, {f"{G}clip_depth": 30.0, f"{G}clip_active": 0.9}),
    (
        "overfit",
        {"val/generator/fit": lambda step: 0.5 + 0.004 * abs(step - 60)},
        {"val/generator/fit": lambda step: 0.5 + 0.0002 * abs(step - 60)},
    ),
    (  # it stands still while training goes on to halve, or while training stands still, too
        "overfit",
        {"val/generator/fit": 0.5, f"{G}fit": lambda step: 0.98**step},
        {"val/generator/fit": 0.5},
    ),
    (  # a few held-out images: what rises is less than what changes from one validation to the next
        "overfit",
        {"val/generator/fit": lambda step: 0.5 + 0.004 * abs(step - 60)},
        {"val/generator/fit": lambda step: 0.5 + 0.3 * (step * 7 % 11) / 10},
    ),
    ("ema-lags", averaged(0.999), averaged(0.997)),  # 0.999^1000 = 0.37, 0.997^1000 = 0.05
    ("codebook-collapse", {f"{BOOK}perplexity": 1.5}, {f"{BOOK}perplexity": 2.5}),
    ("codebook-collapse", {f"{BOOK}perplexity": 1.5}, {f"{BOOK}perplexity": 1.5, f"{BOOK}revival_patience": 190.0}),
    (  # steps of a residual quantizer: the first one, and a later one, which says the rest
        "codebook-collapse",
        {"train/codebook/fine.0/perplexity": 3.0, "train/codebook/fine.0/reachable": 256.0},
        {"train/codebook/fine.1/perplexity": 3.0, "train/codebook/fine.1/reachable": 256.0},
    ),
    ("usage-shrinking", {f"{BOOK}perplexity": lambda step: 50 * 0.99**step}, {f"{BOOK}perplexity": late(50, 30)}),
    ("codebook-idle", {f"{BOOK}perplexity": 6.0}, {f"{BOOK}perplexity": 8.0}),
    ("codes-far", {f"{BOOK}norm_ratio": 12.0}, {f"{BOOK}norm_ratio": 8.0}),
    ("codes-far", {f"{BOOK}norm_ratio": 0.08}, {f"{BOOK}norm_ratio": 0.12}),
    ("revival-fails", {f"{BOOK}usage": 0.3}, {f"{BOOK}usage": 0.3, f"{BOOK}revival_patience": None}),
    ("revival-fails", {f"{BOOK}usage": 0.3, f"{BOOK}revival_patience": 1e5}, {f"{BOOK}usage": 0.6}),
    ("commitment-dominates", {f"{G}near/weighted": 2.0}, {f"{G}near/weighted": 0.5}),
    ("commitment-dominates", {f"{BOOK}error": 1e-3}, {f"{BOOK}error": 4e-3}),
    ("entropy-dominates", {f"{G}spread/weighted": -30.0}, {f"{G}spread/weighted": -9.0}),
    ("posterior-collapse", {"train/posterior/active": 0.0}, {"train/posterior/active": 0.25}),
    ("kl-explosion", {"train/posterior/kl": 20.0}, {"train/posterior/kl": 15.0}),
    (
        "discriminator-wins",
        {f"{D}total": late(1.0, 0.1), f"{D}critic/accuracy_real": 1.0, f"{D}critic/accuracy_fake": 1.0},
        {f"{D}total": late(1.0, 0.4), f"{D}critic/accuracy_real": 1.0, f"{D}critic/accuracy_fake": 1.0},
    ),
    ("discriminator-dead", {f"{D}critic/slope_max": 0.0}, {f"{D}critic/slope_max": 1e-3}),
    (
        "discriminator-dead",
        {f"{D}update_ratio": 1e-7, f"{D}learning_rate": 1e-9},
        {f"{D}update_ratio": late(1e-3, 1e-7), f"{D}learning_rate": late(1e-4, 1e-6)},  # the end of a schedule
    ),
    ("discriminator-dead", UNTRAINED, {**UNTRAINED, f"{G}gradient_norm/adversarial": 0.0}),
    ("critic-starved", {f"{D}clipped": 0.7}, {f"{D}clipped": 0.3}),
    ("mode-collapse", {**GAN, f"{D}critic/diversity": 0.05}, {**GAN, f"{D}critic/diversity": 0.08}),
    (  # images of one kind, near the real ones or far from them
        "mode-collapse",
        {**GAN, f"{D}critic/diversity": 0.08, f"{D}critic/apart": 1.6},
        {**GAN, f"{D}critic/diversity": 0.08, f"{D}critic/apart": 1.0},
    ),
    (  # a batch of six that look alike is chance
        "mode-collapse",
        {**GAN, f"{D}critic/diversity": 0.02},
        {**GAN, f"{D}critic/diversity": lambda step: 0.02 if step % 50 == 0 else 0.1},
    ),
    ("mode-collapse", {**GAN, f"{D}critic/diversity": 0.02}, {f"{D}critic/diversity": 0.02}),  # a blurred autoencoder
    (
        "adversary-shock",
        {f"{G}gradient_norm/adversarial": late(0.0, 1.0), f"{G}fit": late(0.4, 1.0)},
        {f"{G}gradient_norm/adversarial": late(0.0, 1.0), f"{G}fit": late(0.4, 0.5)},
    ),
    (
        "adaptive-clamped",
        {f"{G}adversarial/clamped": 1.0},
        {f"{G}adversarial/clamped": lambda step: float(step % 20 > 0)},
    ),
    ("batch-norm-under-slope", {f"{D}batch_norm_under_slope": 2.0}, {}),
    ("data-limited", {"data_wait": 0.7}, {"data_wait": 0.4}),
    ("memory-grows", {"memory": lambda step: 500.0 + 2 * step}, {"memory": lambda step: 500.0 + 0.3 * step}),
    ("memory-grows", {"memory": lambda step: 500.0 + 2 * step}, {"memory": lambda step: 500.0 + 200 * (step > 100)}),
    (  # a validation takes a jump, between rises of a few KiB
        "memory-grows",
        {"memory": lambda step: 500.0 + 2 * step},
        {"memory": lambda step: 500.0 + 0.001 * step + 200 * (step > 100)},
    ),
]


def found(changes: Changes, recipe: Recipe = RECIPE) -> list[Finding]:
    return replay(log_of(changes), recipe).findings


@pytest.mark.parametrize(("rule", "sick", "near"), CASES, ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)])
def test_rule_speaks_beyond_its_threshold_and_not_before(rule: str, sick: Changes, near: Changes) -> None:
    ill, well = RECIPES.get(rule, (RECIPE, RECIPE))
    said = [finding for finding in found(sick, ill) if finding.id == rule]
    assert len(said) == 1  # once, with what it saw
    assert said[0].evidence
    assert said[0].over is None
    assert rule not in {finding.id for finding in found(near, well)}


def test_every_rule_has_its_case_and_its_words() -> None:
    assert {case[0] for case in CASES} == {rule.id for rule in RULES}
    assert len({rule.id for rule in all_rules()}) == len(RULES) + 1
    for rule in all_rules():
        assert rule.title
        assert len(rule.threshold) > 20
        assert len(rule.cause) > 20
        assert len(rule.change) > 20


@pytest.mark.parametrize("every", [1, 5, 10, 50])
def test_healthy_log_says_nothing_however_often_it_is_written(every: int) -> None:
    assert replay(log_of(steps=400, every=every), RECIPE).findings == []


def test_a_log_without_images_codes_or_critic_is_a_log() -> None:
    flat = [{"step": 10 * n, f"{G}fit": 3.0, f"{G}fit_max": 3.1} for n in range(30)]
    assert [finding.id for finding in replay(flat).findings] == ["plateau"]
    falling = [{"step": 10 * n, f"{G}fit": 3.0 * 0.95**n, f"{G}fit_max": 3.1 * 0.95**n} for n in range(30)]
    assert replay(falling).findings == []
