"""``smalti bench step``: a training step of the KL autoencoder of latent-diffusion, both players."""

import copy
import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING

from smalti.bench.measure import Measured, Row, compare, interleave, memory_note, textbook

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from smalti.assembly.sections import Recipe

Run = Callable[[], object]
RECIPE = "vae-kl-f8"


def recipe_of(channels: int, start: int, *, tiny: bool = False, more: tuple[str, ...] = ()) -> "Recipe":
    """The KL-f8 recipe at another width, its perceptual network with random weights, adversary from ``start``."""
    from smalti.assembly.recipe import load_recipe

    perceptual = "{type: lpips, extractor: {type: lpips, weights: random" + (
        ", widths: [4, 4, 8, 8, 8]}}" if tiny else "}}"
    )
    return load_recipe(
        RECIPE,
        [
            f"model.encoder.channels={channels}",
            f"model.decoder.channels={channels}",
            f"objective.generator.nll.distances.lpips.loss={perceptual}",
            f"objective.generator.adversarial.start={start}",
            f"objective.discriminator.adversarial.start={start}",
            "engine.discriminator_fake=reuse",
            "engine.accumulate=1",
            *more,
        ],
    )


class OurStep:
    """A step as the engine takes it.

    Args:
        recipe: the recipe.
        images: uint8 with shape (B, 3, H, W).
    """

    def __init__(self, recipe: "Recipe", images: "Tensor") -> None:
        from smalti.assembly.assemble import build_model, build_phases
        from smalti.engine.compiling import compile_parts
        from smalti.engine.health import Guard
        from smalti.engine.runtime import Runtime
        from smalti.engine.turn import Player

        settings = recipe.specs["engine"].build()
        optim = recipe.specs["optim"].build()
        self.model = build_model(recipe)
        self.phases = build_phases(recipe, self.model)
        self.runtime = Runtime(settings)
        self.batch = {"image": images, "position": _positions(len(images)), "index": _positions(len(images))}
        for phase in self.phases.values():
            self.runtime.place(phase)
            phase.train()
        compile_parts(self.model, settings.compile)
        self.players = {
            name: Player(name, phase, self.model, getattr(optim, name), settings, self.runtime)
            for name, phase in self.phases.items()
        }
        self.guard = Guard([*self.phases.values(), self.model])
        self.count = 0

    def __call__(self) -> None:
        """One update of the generator, then of the discriminator if it has started."""
        from smalti.objectives.weight import Clock

        fakes: list[Tensor | None] = [None]
        clock = Clock(step=self.count, updates=self.count)
        for name, player in self.players.items():
            if self.phases[name].is_active(clock):
                turn = player.play([self.batch], clock, fakes, guard=self.guard, measure=False)
                fakes = [report.fake for report in turn.reports]
        self.count += 1


def _positions(count: int) -> "Tensor":
    import torch

    return torch.arange(count)


def measure_step(
    channels: int, size: int, batch: int, device: "torch.device", repeats: int
) -> tuple[list[Row], list[str]]:
    """Rows of the step in fp32 and bf16, before the adversary, and with activations made again."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    place = "cpu" if device.type == "cpu" else "auto"
    bf16 = ("engine.precision=bf16",)
    lean = ("model.encoder.recompute=activations", "model.decoder.recompute=activations")
    kinds = {"step": (0, ()), "step before adversary": (10**6, ()), "step bf16": (0, bf16), "step recompute": (0, lean)}
    ours = {
        name: OurStep(recipe_of(channels, start, more=(f"engine.device={place}", *more)), images)
        for name, (start, more) in kinds.items()
    }
    others, notes = _textbook(ours["step"], images, device, channels)
    found = interleave(ours | others, repeats, device)
    rows: list[Row] = []
    for name in ours:
        against = {other: found[other] for other in others}
        if name == "step recompute":
            against["step"] = found["step"]
        rows += compare(name, found[name], against)
    notes.append(memory_note(found, others))
    notes.append(f"perceptual network with random weights; KL-f8, {channels} channels, {size} px, batch {batch}")
    return rows, notes + _shares(ours["step"], found["step"])


def _shares(run: Run, whole: Measured) -> list[str]:
    """What the parts of a step cost, by a profile of one step."""
    from torch.profiler import profile

    with profile() as record:
        run()
    events = [(event.key, event.self_cpu_time_total) for event in record.key_averages()]
    total = sum(time for _, time in events) or 1.0
    largest = sorted(events, key=lambda event: -event[1])[:6]
    text = ", ".join(f"{name.removeprefix('aten::')} {100 * time / total:.0f} %" for name, time in largest)
    return [f"shares of our step ({whole.seconds:.3f} s): {text}"]


def _textbook(
    ours: OurStep, images: "Tensor", device: "torch.device", channels: int
) -> tuple[dict[str, Run], list[str]]:
    plain = textbook("textbook_step")
    pixels = images.to(device).float() / 127.5 - 1.0
    found: dict[str, Run] = {}
    for name, autocast in (("textbook", False), ("textbook bf16", True)):
        step = plain.Step(*_networks(ours), autocast=autocast)
        found[name] = _bound(step, pixels)
    if importlib.util.find_spec("diffusers") is None:
        return found, ["diffusers is not installed (pip install 'smalti[hf]'): no rows against its AutoencoderKL"]
    _, discriminator, perceptual = _networks(ours)
    step = plain.Step(plain.diffusers_model(channels).to(device), discriminator, perceptual)
    found["diffusers"] = _bound(step, pixels)
    return found, []


def _networks(ours: OurStep) -> "tuple[torch.nn.Module, torch.nn.Module, torch.nn.Module]":
    from smalti.losses.lpips import LPIPS

    model, discriminator = copy.deepcopy(ours.model), copy.deepcopy(ours.phases["discriminator"].network)
    known = [part for part in ours.phases["generator"].modules() if isinstance(part, LPIPS)]
    return model, discriminator, LPIPS(extractor=known[0].extractor, reduction="none")


def _bound(step: Callable[["Tensor"], object], images: "Tensor") -> Run:
    return lambda: step(images)
