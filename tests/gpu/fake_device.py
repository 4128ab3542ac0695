"""A device on which nothing is computed: what mixes it with a CPU, or asks for a value, raises.

Tensors are torch's fake ones (shapes, types and devices without numbers), on a device of torch's reserved kind, with
the autocast of CUDA. ``python -m tests.gpu.fake_device RECIPE...`` is a process of its own, since torch never forgets a
device that was made known to it; it writes a line for each recipe: its name, and what went wrong or nothing.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

from smalti.assembly.recipe import load_recipe
from smalti.bench.step import OurStep
from smalti.engine.ema import EMA
from smalti.engine.health import Guard
from smalti.engine.logging import to_host
from smalti.engine.runtime import Runtime
from smalti.engine.samples import sample_images
from smalti.engine.settings import EMASettings
from smalti.engine.turn import Player
from smalti.objectives.weight import Clock
from smalti.outputs import predicts_tokens
from tests.recipes.steps import BATCH, LATE, step_of

NAME = "unreal"
DEVICE = "unreal:0"
AUTOCAST = "AutocastPrivateUse1"
# What autocast of CUDA does with operations, as torch's page on it says; those that are not here are left as they are.
NARROW = "conv1d conv2d conv3d conv_transpose2d addmm addmv addr addbmm baddbmm bmm mm mv linear matmul einsum prelu"
NARROW += " chain_matmul linalg_vecdot linalg_multi_dot scaled_dot_product_attention"
WIDE = "acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow softplus layer_norm"
WIDE += " group_norm nuclear_norm cosine_similarity nll_loss kl_div l1_loss smooth_l1_loss huber_loss mse_loss"
WIDE += (
    " binary_cross_entropy_with_logits dist pdist cdist renorm logsumexp softmax log_softmax cumprod cumsum prod sum"
)
WIDEST = "addcdiv addcmul atan2 bilinear cross dot vdot grid_sampler index_put tensordot scatter_add cat stack"


class _Module(_DummyBackendModule):
    """What torch asks of a device's module."""

    def is_available(self) -> bool:
        """No: nobody is to choose it."""
        return False

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """What autocast may cast to."""
        return [torch.bfloat16]

    def is_initialized(self) -> bool:
        """Nothing is left to do."""
        return True

    def current_device(self) -> int:
        """The only one."""
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """It draws no numbers."""

    def get_rng_state(self, device: object = None) -> Tensor:
        """It has none."""
        return torch.zeros(1, dtype=torch.uint8)

    def set_rng_state(self, state: Tensor, device: object = None) -> None:
        """It has none."""


def make_known() -> list[torch.library.Library]:
    """Tells torch of the device and its autocast, which lasts as long as what it returns is kept."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    rest = torch.library.Library("_", "IMPL")
    rest.fallback(torch.library.fallthrough_kernel, AUTOCAST)  # type: ignore[no-untyped-call]
    ours = torch.library.Library("aten", "IMPL")
    kinds: dict[str, Callable[[list[torch.dtype]], torch.dtype | None]] = {
        NARROW: lambda found: torch.bfloat16,
        WIDE: lambda found: torch.float32,
        WIDEST: lambda found: torch.float32 if torch.float32 in found else None,
    }
    for names, choose in kinds.items():
        for name in names.split():
            packet = getattr(torch.ops.aten, name)
            for overload in packet.overloads():
                if "out" not in overload:
                    full = name if overload == "default" else f"{name}.{overload}"
                    ours.impl(full, _casting(getattr(packet, overload), choose), AUTOCAST)
    return [rest, ours]


def _casting(
    operation: Callable[..., Any], choose: Callable[[list[torch.dtype]], torch.dtype | None]
) -> Callable[..., Any]:
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def run(*args: Any, **kwargs: Any) -> Any:
        dtype = choose([leaf.dtype for arg in args for leaf in (arg if isinstance(arg, (list, tuple)) else [arg])
                        if isinstance(leaf, Tensor)])  # fmt: skip

        def cast(value: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return type(value)(cast(item) for item in value)
            fits = isinstance(value, Tensor) and value.dtype in {torch.float32, torch.bfloat16}
            return value.to(dtype) if fits and dtype is not None else value

        with torch._C._ExcludeDispatchKeyGuard(keys):
            return operation(*map(cast, args), **{name: cast(value) for name, value in kwargs.items()})

    return run


@contextmanager
def _by_exchange() -> Iterator[None]:
    """Within, a module that is moved exchanges its tensors one by one, equal ones for equal ones.

    torch writes into parameters or swaps them, and fake ones can be neither written to nor swapped.
    """
    made: dict[int, tuple[Tensor, Tensor]] = {}

    def apply(module: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        for child in module.children():
            child._apply(function)
        for tensors in (module._parameters, module._buffers):
            for name, tensor in list(tensors.items()):
                if tensor is None or isinstance(tensor, FakeTensor):
                    continue
                moved = function(tensor)
                if isinstance(tensor, nn.Parameter):
                    moved = nn.Parameter(moved, requires_grad=tensor.requires_grad)
                tensors[name] = made.setdefault(id(tensor), (tensor, moved))[1]  # type: ignore[assignment]
        return module

    before = nn.Module._apply
    nn.Module._apply = apply  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        nn.Module._apply = before  # type: ignore[method-assign]


def first_step(name: str) -> OurStep:
    """A late step of a recipe's tiny form on the CPU, in bf16 and channels_last: what starts on data has started."""
    options = ("engine.precision=bf16", "engine.channels_last=true")
    recipe = load_recipe(f"tiny-{name}", ["engine.device=cpu", "engine.accumulate=1", *options])
    if not predicts_tokens(recipe.model_class):
        step = step_of(name, *options)
    else:
        step = OurStep(recipe, torch.zeros(BATCH, 1, 1, 1, dtype=torch.uint8))
        model: Any = step.model
        planes = [torch.randint(0, size, (BATCH, *model.grid)) for size in model.codebooks.values()]
        step.batch = {"indices": torch.stack(planes, dim=1), "label": torch.arange(BATCH), **step.batch}
        del step.batch["image"]
        step.count = LATE
    step()
    return step


def move(step: OurStep, mode: FakeTensorMode) -> None:
    """Everything of a step to the device; its optimizers begin anew there."""
    device = torch.device(DEVICE)

    def moved(tensor: Tensor) -> Tensor:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)

    step.runtime.device = device
    with mode, _by_exchange():
        for module in (*step.phases.values(), step.model):
            module._apply(moved)
    step.players = {
        name: Player(name, player.phase, step.model, player.spec, player.settings, step.runtime)
        for name, player in step.players.items()
    }
    for player in step.players.values():
        player._watched = True  # a run reads one value at its very first update
    step.guard = Guard([*step.phases.values(), step.model])
    step.batch = {name: mode.from_tensor(column) for name, column in step.batch.items()}
    step.batch["position"] = np.arange(BATCH)  # numbers of the host, which seed the noise  # type: ignore[assignment]


def write_down(step: OurStep) -> None:
    """A measured update of each player, and what is read of it for the log; every number is 0."""
    before = FakeTensor.tolist
    for player in step.players.values():
        turn = player.play([step.batch], Clock(step=LATE, updates=LATE), [None], guard=step.guard, measure=True)
        FakeTensor.tolist = lambda tensor: [0.0] * len(tensor)  # type: ignore[assignment, method-assign]
        try:
            to_host(turn.reports[-1].flatten())
            to_host({**turn.clipped, **turn.signals, "gradient norm": turn.gradient_norm})
        finally:
            FakeTensor.tolist = before  # type: ignore[method-assign]


def everything(name: str) -> None:
    """Updates of all players, the average of weights, the objective in evaluation mode, and sample pictures."""
    mode = FakeTensorMode(allow_non_fake_inputs=False)
    step = first_step(name)
    move(step, mode)
    with mode:
        average = EMA(step.model, EMASettings())
        for _ in range(2):
            step()
            average.update(skip=torch.zeros((), device=DEVICE), images=BATCH)
        write_down(step)
        batch = step.players["generator"].prepare(step.batch, Clock())
        with torch.no_grad(), average.applied():
            for phase in step.phases.values():
                phase.eval()
                with step.runtime.autocast():
                    phase(batch, Clock(step=LATE, updates=LATE))
            if "image" in batch:
                sample_images(step.model, batch, 2)


def refused(work: Callable[[], object]) -> bool:
    """Whether the device raises."""
    try:
        with FakeTensorMode(allow_non_fake_inputs=False):
            work()
    except (RuntimeError, DataDependentOutputException):
        return True
    return False


def check_itself() -> None:
    """Raises if the device lets pass what it is there to refuse."""
    faults: dict[str, Callable[[], object]] = {
        "a sum with the CPU": lambda: torch.ones(2, device=DEVICE) + torch.ones(2),
        "a value that is read": lambda: torch.ones((), device=DEVICE).item(),
        "a question": lambda: bool(torch.ones((), device=DEVICE) > 0),
    }
    passed = [name for name, work in faults.items() if not refused(work)]
    if passed or refused(lambda: torch.ones(2, device=DEVICE) * 2.0):
        raise SystemExit(f"not refused: {', '.join(passed)}")


def main(names: Sequence[str]) -> None:
    Runtime.wrap = lambda self, module: module  # type: ignore[method-assign]  # accelerate would move it to the CPU
    kept = make_known()
    check_itself()
    for name in names:
        try:
            everything(name)
            sys.stdout.write(f"{name}\n")
        except Exception as error:
            first = f"{type(error).__name__}: {error}".splitlines()[0]
            sys.stdout.write(f"{name} {first}\n")
    del kept


if __name__ == "__main__":
    main(sys.argv[1:])
