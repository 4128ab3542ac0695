"""What a recipe may say about the run itself: frozen groups of options, with their bounds."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import Field

from smalti.config.limits import number_problem
from smalti.engine.monitor import mode_of
from smalti.registry import UserError, shown, suggest

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Precision = Literal["fp32", "bf16", "fp64"]
Tracker = Literal["none", "tensorboard", "wandb", "trackio"]

GENERATOR = "generator"
MOST_REPEATS = 10_000  # updates of one phase before the others move again
FP16_REFUSED = (
    "precision='fp16': expected 'fp32', 'bf16' or 'fp64'; training in fp16 needs one loss scale for several losses, "
    "penalties and gradient norms at the last layer, and overflows in them: bf16 has the range of fp32"
)


@dataclass(frozen=True, kw_only=True)
class EMASettings:
    """An exponential moving average of the model's parameters; the averaged weights are validated and saved.

    Args:
        decay: share of the old average that is kept at each generator update.
        warmup: keep ``min(decay, (1 + n) / (10 + n))`` at the n-th update, as latent-diffusion's LitEma does.
        half_life: images after which half of the old average is left, in place of ``decay`` and ``warmup``: the same
            average whatever the batch size. StyleGAN2 has 10 000, 20 000 for 256 pixels and less.
        ramp: the half-life is at most this share of the images seen so far (StyleGAN2-ADA: 0.05); None: it never is.
    """

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.9999
    warmup: bool = True
    half_life: Annotated[float, Field(gt=0)] | None = None
    ramp: Annotated[float, Field(gt=0)] | None = 0.05

    def decay_at(self, updates: int, images: int) -> float:
        """The share of the old average that is kept at the n-th update, which sees so many images.

        >>> EMASettings(decay=0.99).decay_at(1, 16)
        0.18181818181818182
        """
        if self.half_life is None:
            return min(self.decay, (1.0 + updates) / (10.0 + updates)) if self.warmup else self.decay
        half_life = self.half_life if self.ramp is None else min(self.half_life, updates * images * self.ramp)
        return float(0.5 ** (images / max(half_life, 1e-8)))


@dataclass(frozen=True, kw_only=True)
class PhaseOptimizer:
    """How one phase steps. Norms, biases and learned scales never decay.

    Args:
        type: Adam (Kingma & Ba, arXiv:1412.6980), AdamW (Loshchilov & Hutter, arXiv:1711.05101), or RMSprop, which has
            no momentum, as WGAN with clipping asks for (Arjovsky et al., arXiv:1701.07875).
        lr: learning rate after the warm-up.
        betas: decay of the first and the second moment.
        alpha: decay of RMSprop's second moment.
        lazy_adam: ``every`` of the phase's lazy term: the rate becomes ``lr k / (k + 1)`` and each beta its power
            ``k / (k + 1)``, so that k + 1 updates, one of them the lazy term's, count as k (arXiv:1912.04958).
        eps: added to the root of the second moment.
        weight_decay: on matrices and kernels only.
        clip: largest total norm of the gradient; None: it is measured and left alone.
        lr_schedule: what follows the warm-up, over the remaining generator updates up to ``lr_steps``.
        lr_steps: generator updates until the schedule ends; None: the run's ``max_steps``.
        lr_end: the last learning rate of a schedule, as a share of ``lr``; above 0 for ``exponential``, which falls by
            equal factors.
        warmup: generator updates over which the rate grows linearly from ``lr / warmup``.
    """

    type: Literal["adam", "adamw", "rmsprop"] = "adam"
    lr: Annotated[float, Field(gt=0)] = 1e-4
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    alpha: Annotated[float, Field(ge=0, lt=1)] = 0.99
    lazy_adam: Positive | None = None
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: Annotated[float, Field(gt=0)] | None = None
    lr_schedule: Literal["constant", "linear", "cosine", "exponential"] = "constant"
    lr_steps: Positive | None = None
    lr_end: Annotated[float, Field(ge=0, le=1)] = 0.0
    warmup: Count = 0

    def __post_init__(self) -> None:
        """Refuses an exponential fall to 0, which has no factor."""
        if self.lr_schedule == "exponential" and self.lr_end <= 0:
            raise ValueError(f"lr_end={self.lr_end}: expected above 0 with lr_schedule='exponential', as 0.01")


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How long a run is, what it writes when, and what carries it.

    Args:
        max_steps: generator updates; THE step of schedules, starts and logs.
        seed: root of all randomness.
        accumulate: micro-batches per update.
        precision: of networks; "bf16" is autocast over fp32 weights, "fp64" plain double. fp16 is refused.
        batches: "shared": all phases of a cycle see the same images; "fresh": each update draws its own.
        discriminator_fake: "reuse" hands the generator's detached output of the same micro-batch to the other
            phases; "refresh" lets them run the model again.
        log_every: steps between two lines of ``metrics.jsonl``.
        sample_every: steps between two sample pictures; 0: none.
        samples: images on a sample picture.
        checkpoint_every: steps between two checkpoints; 0: only the last one.
        keep: newest good checkpoints that are kept, besides the best.
        save: which weights ``model/`` holds at the end: the ``best`` by ``validation.monitor``, or the ``last``; None:
            the best where something is monitored.
        ema: averaged weights, or None.
        tracker: where the log goes besides ``metrics.jsonl``.
        skip_limit: consecutive non-finite steps of one phase after which the run stops.
        device: "auto" takes the accelerator that is there.
        channels_last: memory format of images and kernels; slower on a CPU. On CUDA GroupNorm and SiLU are then one
            kernel. "auto" takes what measured faster on the device: nothing so far, as these kernels were timed on no
            GPU, so that it is false everywhere.
        compile: submodules of the model to compile, by dotted name; slower on a CPU.
        frozen: how frozen networks compute and keep their weights: "float32", with teachers under the autocast of
            ``precision``; or "auto", all of them in bf16 where that is the run's precision. Losses are formed in fp32.
        graphs: "auto" records the passes of an update as a CUDA graph and replays them, where that can be done: it
            spares a small model the launches that a GPU waits for. A line in the log says where it is not, and why.
            "off" by default, since it was timed on no GPU.
        deterministic: ask torch for deterministic kernels, as a bit-exact resume on a GPU needs.
    """

    max_steps: Positive
    seed: Count = 0
    accumulate: Positive = 1
    precision: Precision = "fp32"
    batches: Literal["shared", "fresh"] = "shared"
    discriminator_fake: Literal["reuse", "refresh"] = "reuse"
    log_every: Positive = 100
    sample_every: Count = 1000
    samples: Positive = 8
    checkpoint_every: Count = 1000
    keep: Positive = 3
    save: Literal["best", "last"] | None = None
    ema: EMASettings | None = None
    tracker: Tracker = "none"
    skip_limit: Positive = 20
    device: Literal["auto", "cpu"] = "auto"
    channels_last: bool | Literal["auto"] = False
    compile: Sequence[str] = ()
    frozen: Literal["float32", "auto"] = "float32"
    graphs: Literal["auto", "off"] = "off"
    deterministic: bool = False

    def __post_init__(self) -> None:
        """Refuses what cannot work, whoever made the settings."""
        if str(self.precision) == "fp16":
            raise UserError(FP16_REFUSED)
        if self.precision not in {"fp32", "bf16", "fp64"}:
            raise ValueError(f"precision={self.precision!r}: expected 'fp32', 'bf16' or 'fp64'")
        if self.channels_last not in (True, False, "auto"):
            raise ValueError(f"channels_last={self.channels_last!r}: expected True, False or 'auto'")
        for name, allowed in (("graphs", ("auto", "off")), ("frozen", ("float32", "auto"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected {' or '.join(map(repr, allowed))}")
        for name in ("max_steps", "accumulate", "log_every", "keep", "skip_limit"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected a whole number of at least 1")


@dataclass(frozen=True, kw_only=True)
class ValidationSettings:
    """When the run is measured on held-out images, and what "best" means.

    Args:
        every: steps between two validations; 0: only at the end.
        at_start: measure also before the first step.
        monitor: name of the value that decides, as in the log without "val/" (``psnr``, ``generator/total``); None:
            there is no best checkpoint.
        mode: whether a larger or a smaller value is better; None: as the metric says, smaller for a loss.
    """

    every: Count = 0
    at_start: bool = False
    monitor: str | None = None
    mode: Literal["max", "min"] | None = None

    def is_better(self, value: float, best: float | None) -> bool:
        """Whether ``value`` beats the best so far; a value that is not finite never does."""
        if not math.isfinite(value):
            return False
        mode = self.mode or mode_of(self.monitor or "", None, getattr(self, "metrics", {}))
        return best is None or (value > best if mode == "max" else value < best)


@dataclass(frozen=True, kw_only=True)
class CycleEntry:
    """One entry of a cycle: ``repeat`` updates of ``phase``.

    Args:
        phase: name of the phase.
        repeat: updates in a row.
        weight_clip: bound to which the phase's weights are clamped after each update (WGAN, arXiv:1701.07875).
        reuse: take the images and the noise of the update before, whatever ``engine.batches`` says. PyTorch-GAN's
            schedule is ``[discriminator, {phase: generator, reuse: true}, discriminator*4]`` on fresh batches.
    """

    phase: str
    repeat: Positive = 1
    weight_clip: Annotated[float, Field(gt=0)] | None = None
    reuse: bool = False

    def __post_init__(self) -> None:
        """Refuses a repetition below one, and a bound that is none."""
        if isinstance(self.repeat, bool) or not isinstance(self.repeat, int) or not 1 <= self.repeat <= MOST_REPEATS:
            raise ValueError(f"repeat={shown(self.repeat)}: expected a whole number from 1 to {MOST_REPEATS:,}")
        bound: object = self.weight_clip
        if bound is not None and (isinstance(bound, bool) or not isinstance(bound, (int, float)) or not bound > 0.0):
            raise ValueError(f"weight_clip={shown(bound)}: expected a number above 0")
        if (problem := number_problem(bound)) is not None:
            raise ValueError(f"weight_clip={problem}")
        reuse: object = self.reuse
        if not isinstance(reuse, bool):
            raise ValueError(f"reuse={reuse!r}: expected true or false")


def parse_cycle(
    entries: Sequence[str | Mapping[str, Any] | CycleEntry], phases: Sequence[str]
) -> tuple[CycleEntry, ...]:
    """Reads a cycle: names, ``name*count`` or mappings with the fields of ``CycleEntry``.

    >>> parse_cycle(["discriminator*5", "generator"], ["generator", "discriminator"])[0].repeat
    5

    Args:
        entries: as written in a recipe.
        phases: names of the phases there are.

    Raises:
        UserError: for an unknown phase or field, or unless the generator comes exactly once.
    """
    cycle = tuple(_entry(entry, place) for place, entry in enumerate(entries))
    for place, entry in enumerate(cycle):
        if entry.phase not in phases:
            raise UserError(f"cycle.{place}: unknown phase {entry.phase!r}{suggest(entry.phase, phases)}")
    if cycle and cycle[0].reuse:
        raise UserError("cycle.0.reuse: there is no update before it whose images and noise it could take")
    updates = sum(entry.repeat for entry in cycle if entry.phase == GENERATOR)
    if updates != 1:
        raise UserError(f"cycle: expected exactly one generator update, found {updates}")
    return cycle


def _entry(entry: str | Mapping[str, Any] | CycleEntry, place: int) -> CycleEntry:
    if isinstance(entry, CycleEntry):
        return entry
    if isinstance(entry, str):
        match = re.fullmatch(r"\s*(\w+)\s*(?:\*\s*([1-9][0-9]{0,18}))?\s*", entry)
        if match is None:
            raise UserError(f"cycle.{place}={shown(entry)}: expected a phase such as 'generator' or 'discriminator*5'")
        entry = {"phase": match[1], "repeat": int(match[2] or 1)}
    if not isinstance(entry, Mapping):
        raise UserError(f"cycle.{place}={shown(entry)}: expected a phase such as 'generator' or 'discriminator*5'")
    known = [field.name for field in fields(CycleEntry)]
    for name in entry:
        if name not in known:
            raise UserError(f"cycle.{place}: unknown option {name!r}{suggest(str(name), known)}")
    if "phase" not in entry:
        raise UserError(f"cycle.{place}: the option 'phase' is missing")
    try:
        return CycleEntry(**entry)
    except (TypeError, ValueError) as error:
        raise UserError(f"cycle.{place}: {error}") from error


# Changes that leave the weights of a resumed run as they would have been; "*" stands for any one name.
FREE_TO_CHANGE = (
    "engine.max_steps",
    "engine.log_every",
    "engine.sample_every",
    "engine.samples",
    "engine.checkpoint_every",
    "engine.keep",
    "engine.save",
    "engine.tracker",
    "engine.skip_limit",
    "engine.graphs",
    "data.workers",
    "validation.data.workers",
    "out",
)

# Engine options that came later than the first recipes that may be resumed.
ENGINE_DEFAULTS = {f"engine.{name}": getattr(EngineSettings, name) for name in ("frozen", "graphs")}


def compare_recipes(
    stored: Mapping[str, Any], new: Mapping[str, Any], free: Sequence[str] = FREE_TO_CHANGE
) -> list[str]:
    """Differences that forbid to resume a run with ``new``: one line each, ``place: stored value -> new value``.

    An option of the engine that the stored recipe is older than is no difference while it has its default.

    >>> compare_recipes({"engine": {"seed": 0, "max_steps": 9}}, {"engine": {"seed": 1, "max_steps": 12}})
    ['engine.seed: 0 -> 1']
    """
    old, fresh = flatten(stored), flatten(new)
    absent = "absent"
    return [
        f"{place}: {old.get(place, absent)} -> {fresh.get(place, absent)}"
        for place in sorted(old.keys() | fresh.keys())
        if old.get(place, ENGINE_DEFAULTS.get(place, absent)) != fresh.get(place, absent) and place not in free
    ]


def shared_texts(stored: Mapping[str, Any], new: Mapping[str, Any], parts: Sequence[str]) -> list[str]:
    """The places at or below one of ``parts`` where both recipes have a text, whichever.

    >>> shared_texts({"a": {"b": "x", "c": None}, "d": "x"}, {"a": {"b": "y", "c": "x"}, "d": "x"}, ["a"])
    ['a.b']
    """
    old, fresh = flatten(stored), flatten(new)
    texts = [place for place, value in old.items() if isinstance(value, str) and isinstance(fresh.get(place), str)]
    return sorted(place for place in texts if any(f"{place}.".startswith(f"{part}.") for part in parts))


def flatten(value: Any, place: str = "") -> dict[str, Any]:
    """Dotted place -> leaf, for mappings and sequences inside each other; an empty one is a leaf itself."""
    if isinstance(value, Mapping) and value:
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, (list, tuple)) and value:
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        return {place: value if not isinstance(value, (Mapping, list, tuple)) else type(value)()}
    flat: dict[str, Any] = {}
    for key, item in items:
        flat |= flatten(item, f"{place}.{key}" if place else key)
    return flat
