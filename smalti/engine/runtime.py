"""What carries a run: device, processes and precision, through accelerate. The only place that wraps a network."""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from smalti.data.loader import to_device
from smalti.engine.settings import EngineSettings
from smalti.extractors import Extractor
from smalti.nn.postponed import Postponed
from smalti.objectives.phases import Phase
from smalti.registry import UserError

_T = TypeVar("_T")


class Runtime:
    """Device, rank and precision of this process.

    Autocast is switched here and not by accelerate, which would also replace every phase's ``forward``; nothing but
    the phases is handed to accelerate, least of all the data.
    """

    def __init__(self, settings: EngineSettings) -> None:
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs

        # Lazy terms leave parameters unused in some steps; buffers are changed by phase.update, equally on all ranks.
        parallel = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
        # Without an accelerator accelerate must be told so, or each of n processes trains alone, silently.
        cpu = settings.device == "cpu" or not torch.accelerator.is_available()
        self.accelerator = Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=[parallel])
        self.device: torch.device = self.accelerator.device
        self.rank: int = self.accelerator.process_index
        self.world_size: int = self.accelerator.num_processes
        self.is_main: bool = self.rank == 0
        self.dtype = torch.float64 if settings.precision == "fp64" else torch.float32
        self.checks = Postponed()
        self._bf16 = settings.precision == "bf16"
        self._narrow_frozen = settings.frozen == "auto" and self._bf16
        # "auto" is contiguous until channels_last has been timed on a GPU.
        self.memory_format = torch.channels_last if settings.channels_last is True else torch.contiguous_format
        # A group on the hosts: agreeing on a signal must not wait for the accelerator.
        self._hosts = dist.new_group(backend="gloo") if self.world_size > 1 else None
        self._deterministic = settings.deterministic
        if settings.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may add up in another order

    @property
    def reads_are_free(self) -> bool:
        """Whether a value may be read from the device at every step without stalling it."""
        return self.device.type == "cpu"

    @contextmanager
    def repeatable(self) -> Iterator[None]:
        """Within, torch takes deterministic algorithms if the run asks for it; afterwards what it took before."""
        if not self._deterministic:
            yield
            return
        before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
        benchmark = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            torch.backends.cudnn.benchmark = benchmark

    def postponing(self) -> AbstractContextManager[None]:
        """Within, checks of values on the device leave them in ``checks``, unless they may be read at every step."""
        return nullcontext() if self.reads_are_free else self.checks.collecting()

    def place(self, module: nn.Module) -> None:
        """Moves a module to the device, in the run's precision and memory format."""
        module.to(device=self.device, dtype=self.dtype)
        if self.memory_format is torch.channels_last:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self._narrow_frozen:
            for part in _all_modules(module):
                if isinstance(part, Extractor):
                    part.narrow()

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module as it is called in training: itself, or DDP around it."""
        with warnings.catch_warnings():
            # The new name of the option is unknown to torch < 2.13 and to accelerate.
            warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
            wrapped: nn.Module = self.accelerator.prepare_model(module)
        return wrapped

    def no_sync(self, wrapped: nn.Module) -> AbstractContextManager[Any]:
        """Within, gradients stay on this rank."""
        context: AbstractContextManager[Any] = self.accelerator.no_sync(wrapped)
        return context

    def autocast(self) -> AbstractContextManager[Any]:
        """Within, networks compute in bf16 if the run asks for it."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self._bf16 else nullcontext()

    def to_device(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch on the device, images in [-1, 1], floating-point columns in the run's precision."""
        moved = to_device(dict(batch), self.device, self.dtype)
        return {name: self._cast(value) if isinstance(value, Tensor) else value for name, value in moved.items()}

    def _cast(self, value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return value
        memory = self.memory_format if value.ndim == 4 else torch.preserve_format
        return value.to(dtype=self.dtype, memory_format=memory)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank, agreed among the hosts."""
        return self.largest(int(flag)) > 0

    def largest(self, vote: int) -> int:
        """The largest vote of all ranks, agreed among the hosts."""
        if self._hosts is None:
            return vote
        votes = torch.tensor([vote])
        dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=self._hosts)
        return int(votes.item())

    @contextmanager
    def together(self) -> Iterator[None]:
        """Within, it is told in one sentence that another rank has gone.

        Raises:
            UserError: in place of what the back end says of it.
        """
        try:
            yield
        except RuntimeError as error:
            if self._hosts is None or not _is_loss_of_a_rank(error):
                raise
            raise UserError("another process of this run has ended; its own message says why") from error

    def any_tensor(self, flag: Tensor) -> Tensor:
        """Element-wise, the largest value over all ranks, left on the device."""
        if self.world_size > 1:
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return flag

    def gather(self, value: _T) -> list[_T]:
        """The plain values of all ranks, in their order, on each of them."""
        if self._hosts is None:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self._hosts)
        return values

    def on_main(self, action: Callable[[], _T]) -> _T:
        """Runs ``action`` on rank 0 alone and gives its result to all; an error there is raised everywhere.

        Raises:
            Exception: what ``action`` raised, on every rank, so that none waits for another.
        """
        if self._hosts is None:
            return action()
        outcome: list[Any] = [None, None]
        if self.is_main:
            try:
                outcome[0] = action()
            except Exception as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome, src=0, group=self._hosts)
        if outcome[1] is not None:
            raise outcome[1]
        result: _T = outcome[0]
        return result


def _all_modules(module: nn.Module) -> Iterator[nn.Module]:
    """Of a module, and of the networks that a phase refers to."""
    yield from module.modules()
    if isinstance(module, Phase):
        for other in module.others:
            yield from other.modules()


def _is_loss_of_a_rank(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or "/gloo/" in str(error) or "NCCL" in str(error)
