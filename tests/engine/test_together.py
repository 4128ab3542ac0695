"""What is done to all tensors at once equals what is done to one after the other, bit for bit."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from smalti.engine.ema import CHUNK, EMA
from smalti.engine.health import Guard
from smalti.engine.optimizers import RMSprop, build_optimizer
from smalti.engine.settings import EMASettings, PhaseOptimizer
from tests.contracts.examples import tiny
from tests.engine.toys import tiny_trainer


def network(count: int = CHUNK + 3) -> nn.Module:
    """More parameters than are handled at a time, of several shapes."""
    sizes = [(1 + number % 3, 2 + number % 5) for number in range(count)]
    return nn.ParameterList(nn.Parameter(torch.randn(size)) for size in sizes)


def test_averages() -> None:
    model = network()
    ema = EMA(model, EMASettings(decay=0.75, warmup=False))
    expected = [p.detach().clone() for p in model.parameters()]
    for step in range(3):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        bad = torch.tensor(float(step == 1))
        ema.update(skip=bad)
        pairs = zip(expected, model.parameters(), strict=True)
        expected = [average - (1.0 - 0.75) * (1.0 - bad) * (average - p.detach()) for average, p in pairs]
    assert all(torch.equal(a, b) for a, b in zip(expected, ema.shadow.values(), strict=True))


@pytest.mark.parametrize("kind", ["adam", "adamw", "rmsprop"])
def test_optimizers(kind: str) -> None:
    torch.manual_seed(1)
    fused, plain = network(9), network(9)
    plain.load_state_dict(fused.state_dict())
    spec = PhaseOptimizer(type=kind, lr=1e-2, weight_decay=0.1, betas=(0.5, 0.9))  # type: ignore[arg-type]
    one = build_optimizer(fused, spec)
    classes = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop}
    options = {"alpha": spec.alpha} if kind == "rmsprop" else {"betas": spec.betas, "fused": False}
    groups = [{"params": list(plain.parameters()), "weight_decay": 0.1}]
    other = classes[kind](groups, lr=1e-2, eps=spec.eps, foreach=False, **options)
    for _ in range(4):
        for a, b in zip(fused.parameters(), plain.parameters(), strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        one.step()
        other.step()
    pairs = list(zip(fused.parameters(), plain.parameters(), strict=True))
    kernels = [pair for pair in pairs if sum(size > 1 for size in pair[0].shape) >= 2]  # the others do not decay
    for a, b in kernels:
        torch.testing.assert_close(a, b, rtol=2e-6, atol=2e-7)


def test_a_step_of_rmsprop_that_is_bad_changes_nothing() -> None:
    part = network(3)
    optimizer = build_optimizer(part, PhaseOptimizer(type="rmsprop"))
    assert isinstance(optimizer, RMSprop)
    before = [p.detach().clone() for p in part.parameters()]
    for parameter in part.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, part.parameters(), strict=True))


def clipped(gradients: list[Tensor], bound: float) -> list[Tensor]:
    parameters = [nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    torch.nn.utils.clip_grad_norm_(parameters, bound, foreach=False)
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def test_clipping_is_that_of_torch(tmp_path: Path) -> None:
    bound = 0.01
    found: dict[float | None, list[Tensor]] = {}
    for clip in (None, bound):
        spec = PhaseOptimizer(lr=1e-3, clip=clip)
        trainer = tiny_trainer(tmp_path / str(clip), max_steps=1, optimizer=spec, cycle=("generator",))
        trainer._prepare_to_train()
        turn = trainer.run_cycle()[0]
        assert float(turn.gradient_norm) > bound  # it is measured before
        found[clip] = [p.grad for p in trainer.players["generator"].parameters.values() if p.grad is not None]
    for ours, theirs in zip(found[bound], clipped(found[None], bound), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-9)


def test_weights_are_clamped_to_the_bound(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, max_steps=1)
    player = trainer.players["discriminator"]
    expected = [p.detach().clamp(-0.02, 0.02) for p in player.parameters.values()]
    assert any(bool((p.abs() > 0.02).any()) for p in player.parameters.values())
    player._clamp(0.02)
    assert all(torch.equal(a, b) for a, b in zip(expected, player.parameters.values(), strict=True))


def test_the_guard_copies_buffers_and_no_frozen_network() -> None:
    from smalti.extractors.lpips import LPIPS

    frozen = tiny(LPIPS)
    module = nn.Sequential(nn.BatchNorm2d(3), nn.ModuleDict({"loss": frozen}))
    guard = Guard([module])
    guard.take()
    assert {id(owner) for owner, _, _ in guard._buffers} == {id(module[0])}
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    module[0](torch.full((2, 3, 4, 4), torch.nan))
    assert bool(module[0].running_mean.isnan().any())
    guard.restore()
    assert all(torch.equal(before[name], buffer) for name, buffer in module.named_buffers())
