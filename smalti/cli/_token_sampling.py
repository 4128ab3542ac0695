"""Images of a model of tokens: what the options of ``smalti sample`` mean, the draws, and how far they are."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smalti.registry import UserError, shown, suggest

if TYPE_CHECKING:
    from torch import Tensor

    from smalti.models._token_model import TokenModel
    from smalti.models.autoencoder import Autoencoder

Told = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Draw:
    """How tokens are drawn, as the options say; None where an option was not given.

    Args:
        guidance: a number, or ``codebook=number,...``.
        guidance_schedule: how it grows over the positions.
        guidance_interval: ``first,last`` position that is guided.
        temperature: of the softmax.
        top_k: of the best codes.
        top_p: their probability.
        tokenizer: where it is.
    """

    guidance: str | None = None
    guidance_schedule: str | None = None
    guidance_interval: str | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    tokenizer: str | None = None

    def given(self) -> list[str]:
        """The options that were given, as they are written."""
        return [f"--{name.replace('_', '-')}" for name, value in vars(self).items() if value is not None]

    def options(self, model: "TokenModel") -> dict[str, Any]:
        """The keyword arguments of ``model.sample``.

        Raises:
            UserError: naming the option that does not fit.
        """
        found: dict[str, Any] = {
            "guidance": guidance_of(self.guidance, list(model.codebooks)) if self.guidance is not None else None,
            "guidance_schedule": self.guidance_schedule,
            "guidance_interval": None if self.guidance_interval is None else _interval(self.guidance_interval, model),
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
        }
        return {name: value for name, value in found.items() if value is not None}


def guidance_of(text: str, codebooks: Sequence[str]) -> float | dict[str, float]:
    """``2``, or ``visual=2,semantic=1.5``.

    >>> guidance_of("2", ["visual"]), guidance_of("visual=2,semantic=1.5", ["visual", "semantic"])
    (2.0, {'visual': 2.0, 'semantic': 1.5})

    Raises:
        UserError: for anything else.
    """
    if "=" not in text:
        return _number(text, "--guidance")
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        name = name.strip()
        if name not in codebooks:
            raise UserError(f"--guidance {text}: no codebook {shown(name)}{suggest(name, codebooks)}")
        if name in found:
            raise UserError(f"--guidance {text}: {name} is there twice")
        found[name] = _number(value, "--guidance")
    return found


def classes_of(text: str, num_classes: int) -> list[int]:
    """``0,1,2`` or ``0-2``, each a class of the model.

    >>> classes_of("0-2,7", 10)
    [0, 1, 2, 7]

    Raises:
        UserError: for anything else.
    """
    known = f"0 to {num_classes - 1}" if num_classes else "none, it has no classes"
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        numbers = [first, last] if dash else [first]
        if not all(word.isascii() and word.isdecimal() and len(word) < 10 for word in numbers):
            raise UserError(f"--classes {text}: expected classes such as 0,1,2 or 0-9, of this model's ({known})")
        low, high = int(numbers[0]), int(numbers[-1])
        odd = low if low >= num_classes else high
        if odd >= num_classes:
            raise UserError(f"--classes {text}: {odd} is not a class of this model ({known})")
        if low > high:
            raise UserError(f"--classes {text}: {part} begins above its end")
        found += range(low, high + 1)
    return found


def token_images(
    model: "TokenModel",
    tokenizer: "Autoencoder",
    *,
    seed: int,
    count: int,
    classes: Sequence[int] | None = None,
    batch: int = 64,
    tell: Told | None = None,
    **options: Any,
) -> "Iterator[Tensor]":
    """Batches of images (n, C, H, W) in [-1, 1], ``count`` in all: image i has seed ``seed + i``.

    Args:
        model: draws tokens.
        tokenizer: decodes them.
        seed: of the first image.
        count: images.
        classes: image i has class i modulo their number; None: all of the model's in turn.
        batch: images that are drawn together, which changes none of them.
        tell: called with the number of positions done and of all, over all batches.
        options: of ``model.sample``.
    """
    import torch

    from smalti.interop.decoding import decode

    device = next(model.parameters()).device
    known = classes or range(model.num_classes)
    done, every = 0, -(-count // batch) * model.positions
    for start in range(0, count, batch):
        numbers = range(start, min(start + batch, count))
        told = torch.tensor([known[number % len(known)] for number in numbers], device=device) if known else None
        before = done

        def step(position: int, _: int, before: int = before) -> None:
            if tell is not None:
                tell(before + position, every)

        seeds = [seed + number for number in numbers]
        indices = model.sample(told, seeds=seeds, progress=step, **options)
        done += model.positions
        with torch.inference_mode():
            yield decode(tokenizer, indices)


class PositionBar:
    """A bar on a terminal: positions done, positions/s, and how long it will take; elsewhere nothing."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
        self._bar = Progress(TextColumn("positions"), *columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=None, rate="")
        self._began = time.perf_counter()

    def __enter__(self) -> "PositionBar":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def tell(self, done: int, of: int) -> None:
        """Shows that ``done`` of ``of`` positions are drawn."""
        seconds = time.perf_counter() - self._began
        rate = f"{done / max(seconds, 1e-9):,.1f} positions/s"
        self._bar.update(self._task, completed=done, total=of, rate=rate)


def _number(text: str, option: str) -> float:
    import math

    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0.0:
        raise UserError(f"{option} {text}: expected a number, 0 or more, or codebook=number,...")
    return value


def _interval(text: str, model: "TokenModel") -> tuple[int, int]:
    first, comma, last = (word.strip() for word in text.partition(","))
    if not (comma and all(word.isascii() and word.isdecimal() and len(word) < 10 for word in (first, last))):
        raise UserError(f"--guidance-interval {text}: expected two positions, first,last")
    low, high = int(first), int(last)
    if not low <= high < model.positions:
        rule = f"expected first <= last, of the positions 0 to {model.positions - 1}"
        raise UserError(f"--guidance-interval {text}: {rule}")
    return low, high
