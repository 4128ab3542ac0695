"""Laws that hold on every device and that only a GPU can break: plain functions, so that they run without pytest, too.

Each takes the device and an empty folder. On a CPU stand-ins show as much as can be shown there.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from smalti.bench.kernels import profiled
from smalti.bench.step import OurStep
from smalti.engine.graphs import Replayer
from smalti.nn.code_search import nearest_code
from smalti.nn.group_norm import group_norm, is_fused
from smalti.nn.soft_assignment import assign_codes, path
from tests.engine.job import resumed_run_differs
from tests.engine.toys import differences, everything, tiny_trainer
from tests.gpu.stand_in import LayoutCopies, StandIn, Waits, reads_cost
from tests.recipes.steps import step_of

WIDTHS = (3, 8, 64, 256)
# Where transformers is missing, FQGAN's teachers are.
FACTORIZED = "fqgan-triple-f16" if importlib.util.find_spec("transformers") else "ibq-f16"
RECIPES = ("quickstart", FACTORIZED, "vae-kl-f8", "vqgan-f16")


def near(found: Tensor, expected: Tensor, tolerance: float) -> None:
    error = float((found.detach().double() - expected).norm() / expected.norm())
    assert error <= tolerance, f"relative error {error:.2e}, at most {tolerance:.0e}"


def unit_rows(rows: int, channels: int, device: torch.device) -> Tensor:
    return F.normalize(torch.randn(rows, channels, device=device), dim=1)


def soft_assignment_is_exact(device: torch.device, folder: Path) -> None:
    """Statistics and gradients are those of float64, on the path that is said to be taken."""
    for channels in WIDTHS:
        z, codebook = unit_rows(301, channels, device), unit_rows(517, channels, device)
        results = []
        for dtype in (torch.float32, torch.float64):
            leaves = [value.to(dtype).detach().requires_grad_() for value in (z, codebook)]
            found = assign_codes(*leaves, temperature=0.01)
            total = found.entropy.sum() + (found.mean_probability.square() * len(codebook)).sum()
            results.append([found.entropy, found.mean_probability, *torch.autograd.grad(total, leaves)])
        for ours, exact in zip(*results, strict=True):
            near(ours, exact.detach(), 2e-5)
        assert path(device, torch.float32, channels + 1) == ("triton" if device.type == "cuda" else "eager")


def nearest_code_is_exact(device: torch.device, folder: Path) -> None:
    """No token gets a code that is farther away, beyond rounding, than the nearest."""
    for channels in WIDTHS:
        z, codebook = unit_rows(1003, channels, device), unit_rows(517, channels, device)
        distances = torch.cdist(z.double(), codebook.double())
        chosen = distances.gather(1, nearest_code(z, codebook)[:, None])[:, 0]
        assert float((chosen - distances.amin(dim=1)).max()) <= 1e-6


def group_norm_is_exact(device: torch.device, folder: Path) -> None:
    """GroupNorm and SiLU of a channels_last image and their gradients are those of float64, and stay channels_last."""
    for shape, groups in (((2, 64, 17, 9), 32), ((3, 128, 8, 8), 32), ((1, 6, 5, 3), 1)):
        x = (3 * torch.randn(shape, device=device) + 2).contiguous(memory_format=torch.channels_last)
        weight, bias = (torch.randn(shape[1], device=device) for _ in range(2))
        results = []
        for dtype in (torch.float32, torch.float64):
            leaves = [value.to(dtype).detach().requires_grad_() for value in (x, weight, bias)]
            y = group_norm(leaves[0], groups, leaves[1], leaves[2], 1e-6, silu=True)
            results.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
        for ours, exact in zip(*results, strict=True):
            near(ours, exact.detach(), 2e-5)
        assert results[0][0].is_contiguous(memory_format=torch.channels_last)
        assert is_fused(x) == (device.type == "cuda")


def equal_runs_are_equal(device: torch.device, folder: Path) -> None:
    """Two deterministic runs end with the same bits."""
    ends = []
    for name in ("one", "other"):
        trainer = tiny_trainer(folder / name, max_steps=4, deterministic=True, revival=True)
        trainer.run()
        assert trainer.runtime.device.type == device.type
        ends.append(everything(trainer))
    assert not differences(*ends)


def a_resumed_run_equals_the_uninterrupted_one(device: torch.device, folder: Path) -> None:
    """So it does in bf16, in the middle of an epoch, bit for bit."""
    options = {"deterministic": True, "precision": "bf16", "accumulate": 2}
    assert resumed_run_differs(folder, options) == []


def nothing_waits_between_log_steps(device: torch.device, folder: Path) -> None:
    """A step reads no value of the device."""
    for name in RECIPES:
        step = step_on(device, name)
        assert not waits_of(step, device), name


def step_on(device: torch.device, name: str, *overrides: str) -> OurStep:
    """A late step of a recipe's tiny form in bf16 and channels_last, after the first ones."""
    common = (f"engine.device={'cpu' if device.type == 'cpu' else 'auto'}", "engine.precision=bf16")
    step = step_of(name, *common, "engine.channels_last=true", *overrides)
    step()
    step()
    return step


def waits_of(step: OurStep, device: torch.device) -> dict[str, int]:
    """What a step waits for: raised by torch on a GPU, counted on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode(before)
        return {}
    with reads_cost():
        step()  # what an update writes is learned at the first one
        with Waits() as waits:
            step()
    return dict(waits.found)


def images_stay_channels_last(device: torch.device, folder: Path) -> None:
    """No image larger than a latent is copied from one memory format to the other in a step; nor inside of kernels."""
    step = step_on(device, FACTORIZED)
    with LayoutCopies() as copies:
        step()
    images = tuple(step.batch["image"].shape)  # as they were read; they become channels_last on the device
    large = {shape: n for shape, n in copies.found.items() if shape[2] * shape[3] > LARGEST_LATENT and shape != images}
    assert not large, large
    if device.type == "cuda":
        names = [kernel.name for kernel in profiled(step, device)]
        turning = [name for name in names if "nchwToNhwc" in name or "nhwcToNchw" in name]
        assert not turning, turning


LARGEST_LATENT = 16  # positions of the latent of 64 pixels under f16: gradients of terms over latents are turned there


def entropy_needs_little_memory(device: torch.device, folder: Path) -> None:
    """Nothing of size N x K is kept, and on a GPU none is held either."""
    tokens, codes, channels = (8192, 16384, 8) if device.type == "cuda" else (512, 1024, 8)
    z, codebook = (unit_rows(rows, channels, device).requires_grad_() for rows in (tokens, codes))
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    def run() -> None:
        found = assign_codes(z, codebook, temperature=0.01)
        torch.autograd.grad(found.entropy.sum() + found.mean_probability.square().sum(), (z, codebook))

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        run()
    assert sum(saved.values()) <= 4 * 4 * (tokens + codes) * (channels + 4)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        assert torch.cuda.max_memory_allocated() - before <= 64 * 2**20


def graphs_equal_eager(device: torch.device, folder: Path) -> None:
    """A run whose updates are replayed ends with the bits of one that is not; most of its updates are."""
    for space in ("codes", "gaussian"):
        ends: list[dict[str, Tensor]] = []
        for graphs in ("off", "auto"):
            options: dict[str, Any] = {"graphs": graphs, "deterministic": True, "log_every": 100, "space": space}
            trainer = tiny_trainer(folder / f"{space}-{graphs}", max_steps=9, **options)
            if graphs == "auto" and device.type == "cpu":
                stand_in(trainer)
            trainer.run()
            ends.append(everything(trainer))
            if graphs == "auto":
                # Of 9 updates the first and the last are measured, and three of a kind warm up; the adversary's start
                # makes another kind of the generator's.
                players = {name: player.replayer for name, player in trainer.players.items()}
                told = {name: (replayer.replays, replayer.reason) for name, replayer in players.items()}
                assert told == {"generator": (3, None), "discriminator": (4, None)}
        assert not differences(*ends), space


def stand_in(trainer: Any) -> None:
    """Lets the updates of a trainer be recorded on a CPU."""
    for name, player in trainer.players.items():
        recorder = StandIn((player.phase, *player.phase.others))
        player.replayer = Replayer(recorder, player._addresses, None, name)


LAWS: dict[str, Callable[[torch.device, Path], None]] = {
    law.__name__: law
    for law in (
        soft_assignment_is_exact,
        nearest_code_is_exact,
        group_norm_is_exact,
        equal_runs_are_equal,
        a_resumed_run_equals_the_uninterrupted_one,
        nothing_waits_between_log_steps,
        images_stay_channels_last,
        entropy_needs_little_memory,
        graphs_equal_eager,
    )
}
