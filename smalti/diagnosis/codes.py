"""Rules about codebooks: what is in use, and how near the latents are."""

import math
from collections.abc import Iterator

from smalti.diagnosis.history import View
from smalti.diagnosis.rule import Rule, Sighting

CODEBOOK = "train/codebook/"
FULL_WINDOW = 20  # updates before counts of codes mean something


def _books(view: View) -> Iterator[tuple[str, float, float, float]]:
    """Name, usage, perplexity, and how many codes the counted tokens could fill at most."""
    for name, perplexity in view.between(CODEBOOK, "/perplexity"):
        usage = view(f"{CODEBOOK}{name}/usage")
        yield name, usage, perplexity, view(f"{CODEBOOK}{name}/reachable")


def _has_settled(view: View, name: str) -> bool:
    """Whether counts mean something, and dead codes were revived, where that may still happen within the run."""
    patience = view(f"{CODEBOOK}{name}/revival_patience")
    helped = patience < view.facts.number("engine.max_steps", math.inf)
    return view.step >= (patience if helped else 0) + FULL_WINDOW


def _is_leftover(view: View, name: str) -> bool:
    """Whether a plane is a later step of a residual quantizer: it has only to say what the steps before left."""
    book, _, step = name.rpartition(".")
    return view.facts.get(f"model.bottleneck.codebooks.{book}.quantizer.type") == "residual" and step != "0"


def _collapsed(view: View) -> Iterator[Sighting]:
    for name, usage, perplexity, reachable in _books(view):
        least = 2.0 if _is_leftover(view, name) else max(2.0, 0.02 * reachable)
        if _has_settled(view, name) and reachable >= 8 and perplexity < least:
            evidence = {"perplexity": perplexity, "usage": usage, "codes within reach": reachable}
            yield Sighting(subject=f"codebook {name}", evidence=evidence)


def _shrinking(view: View) -> Iterator[Sighting]:
    for name, usage, perplexity, reachable in _books(view):
        recent = (record for record in view.history.recent if record["step"] >= FULL_WINDOW)
        best = max((record.get(f"{CODEBOOK}{name}/perplexity", 0.0) for record in recent), default=0.0)
        latest = view.latest(f"{CODEBOOK}{name}/perplexity", 6)
        falling = len(latest) == 6 and latest[-1] < 0.9 * latest[0]
        if view.step >= 2 * FULL_WINDOW and reachable >= 8 and perplexity < 0.4 * best and falling:
            evidence = {"perplexity": perplexity, "at its best": best, "usage": usage}
            yield Sighting(subject=f"codebook {name}", evidence=evidence)


def _idle(view: View) -> Iterator[Sighting]:
    books = {name: (math.log(max(p, 1.0)), reachable) for name, _, p, reachable in _books(view) if reachable >= 8}
    for name, (nats, _) in books.items() if view.step >= FULL_WINDOW else ():
        others = max((other for key, (other, _) in books.items() if key != name), default=0.0)
        if nats < 0.5 * others and others > math.log(4.0):
            evidence = {"bits of its tokens": nats / math.log(2), "bits of the best": others / math.log(2)}
            yield Sighting(subject=f"codebook {name}", evidence=evidence)


def _far(view: View) -> Iterator[Sighting]:
    for name, ratio in view.between(CODEBOOK, "/norm_ratio"):
        if not 0.1 < ratio < 10.0 and view.step >= FULL_WINDOW:
            evidence = {"|z| / |codes|": ratio, "|z - code|^2 / |z|^2": view(f"{CODEBOOK}{name}/error")}
            yield Sighting(subject=f"codebook {name}", evidence=evidence)


def _unrevived(view: View) -> Iterator[Sighting]:
    for name, patience in view.between(CODEBOOK, "/revival_patience"):
        usage, reachable = view(f"{CODEBOOK}{name}/usage"), view(f"{CODEBOOK}{name}/reachable_share")
        length = view.facts.number("engine.max_steps", math.inf)
        due = view.step >= 2 * patience if patience < length else view.step >= 100
        if due and view.step >= 100 and usage < 0.5 * reachable:
            evidence = {"usage": usage, "share within reach": reachable, "patience": patience}
            yield Sighting(subject=f"codebook {name}", evidence=evidence)


def _terms(view: View, kind: str, most: float) -> Iterator[Sighting]:
    """Terms of a kind that are more than a share of what the generator weighs."""
    shares = dict(view.between("train/generator/", "/weighted"))
    whole = sum(map(abs, shares.values()))
    for name in view.facts.terms("generator", kind):
        share = abs(shares.get(name, 0.0)) / whole if whole > 0 else 0.0
        if share > most and view.step >= FULL_WINDOW:
            evidence = {"share of the loss": share, "weighted": shares[name]}
            yield Sighting(subject=f"term {name}", evidence=evidence)


def _commitment(view: View) -> Iterator[Sighting]:
    yield from _terms(view, "commitment", 0.5)
    if not view.facts.terms("generator", "commitment"):
        return
    for name, error in view.between(CODEBOOK, "/error"):
        if error < 2e-3 and view.step >= FULL_WINDOW:
            yield Sighting(subject=f"codebook {name}", evidence={"|z - code|^2 / |z|^2": error})


def _entropy(view: View) -> Iterator[Sighting]:
    return _terms(view, "entropy", 0.95)


RULES = (
    Rule(
        id="codebook-collapse",
        title="Codebook collapse",
        look=_collapsed,
        threshold="perplexity below 2 codes, or below 2 % of the codes that the counted tokens could fill: what is "
        "left carries less than a bit, or a fiftieth of what it could (of later steps of a residual quantizer, which "
        "say what the steps before left: below 2 codes); with revival, after its patience",
        cause="nearly all tokens are the same few codes, so that the latents say next to nothing",
        change="model.bottleneck.codebooks.<name>.quantizer: init: kmeans, ema: {decay: 0.99} and revival: "
        "{patience: 100}; or normalize: true, channels: 8; a smaller commitment weight",
    ),
    Rule(
        id="usage-shrinking",
        title="Usage shrinks",
        look=_shrinking,
        threshold="perplexity below 40 % of its best in the latest 32 log steps (without the first 20 updates, where "
        "k-means has just spread the codes), and a tenth lower than six log steps ago: noise of counts does neither",
        cause="codes die one after the other: the encoder moves away from those that are not chosen",
        change="model.bottleneck.codebooks.<name>.quantizer.revival: {patience: 100} brings them back; a lower "
        "optim.generator.lr, or an entropy term, keeps them",
    ),
    Rule(
        id="codebook-idle",
        title="One codebook of several is idle",
        look=_idle,
        threshold="its tokens carry less than half of the bits of the best of its neighbours, which carry over two",
        cause="the other codebooks do its work: nothing asks for what it could say",
        change="a term of its own for it (info_nce or cosine on a head of this codebook, disentangle), init: kmeans "
        "and revival for its quantizer, or fewer codebooks",
    ),
    Rule(
        id="codes-far",
        title="Latents far from codes",
        look=_far,
        threshold="root mean squares of latents and codes differ by more than 10 times (healthy runs of the zoo: 0.75 "
        "to 3.4): every latent then lies on one side of all codes, or all codes on one of the latents",
        cause="latents and codes live on different scales, so that the choice of a code says nothing",
        change="model.bottleneck.codebooks.<name>.quantizer: init: kmeans (codes start where the latents are), or "
        "normalize: true; a commitment term, or a larger weight of it",
    ),
    Rule(
        id="revival-fails",
        title="Dead codes after revival",
        look=_unrevived,
        threshold="revival is on and had time to act twice (or is too patient to act within the run), and less than "
        "half of what is within reach is in use",
        cause="codes that are revived are not chosen again, or revival waits longer than the run lasts",
        change="model.bottleneck.codebooks.<name>.quantizer.revival.patience: shorter; a larger data.batch_size (it is "
        "where codes are taken from); a smaller size",
    ),
    Rule(
        id="commitment-dominates",
        title="Commitment dominates",
        look=_commitment,
        threshold="more than half of the loss by absolute value (healthy runs of the zoo: at most a tenth), or latents "
        "nearer to their codes than 4 % of their length (error below 0.002; healthy runs of the zoo: at least 0.03)",
        cause="the encoder is paid for staying near codes, not for describing images",
        change="objective.generator.<term>.weight: lower (0.25 is usual); init: kmeans if latents are far from codes",
    ),
    Rule(
        id="entropy-dominates",
        title="Entropy overwhelms",
        look=_entropy,
        threshold="more than 95 % of the loss by absolute value: below that it may be much of the value and yet little "
        "of the gradient, since it is bounded by the logarithm of the codes (healthy runs of the zoo: up to 80 %)",
        cause="spreading the codes is worth more than describing images",
        change="objective.generator.<term>.weight: lower (0.02 to 0.1 is usual), or a ramp for it",
    ),
)
