"""Exponential moving average of a model's parameters (Polyak & Juditsky, 1992); its buffers stay the model's own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from smalti.engine.settings import EMASettings

CHUNK = 64  # tensors per fused call: bounds the temporary copy


class EMA:
    """The average of the parameters of ``model`` that are trainable when it is made; it starts as their copy.

    shadow <- shadow - (1 - decay_n) (shadow - parameter), in the parameters' own precision. Everything stays on the
    device, the counter too: a skipped step is a multiplication by zero.
    """

    def __init__(self, model: nn.Module, settings: EMASettings) -> None:
        self.settings = settings
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.shadow = {name: p.detach().clone() for name, p in self.parameters.items()}
        device = next((p.device for p in self.parameters.values()), torch.device("cpu"))
        self.updates = torch.zeros((), dtype=torch.float64, device=device)

    @torch.no_grad()
    def update(self, skip: Tensor | None = None, images: int = 1) -> None:
        """Moves the average towards the parameters, unless the scalar tensor ``skip`` is not zero.

        Args:
            skip: not zero if the step was skipped.
            images: of this update, all ranks and micro-batches; what a half-life is counted in.
        """
        went = torch.ones_like(self.updates) if skip is None else 1.0 - skip.to(self.updates)
        self.updates += went
        share = (1.0 - self._decay(images)) * went
        names = list(self.shadow)
        for start in range(0, len(names), CHUNK):
            chunk = names[start : start + CHUNK]
            shadows = [self.shadow[name] for name in chunk]
            moved = torch._foreach_sub(shadows, [self.parameters[name].detach() for name in chunk])
            torch._foreach_mul_(moved, share.to(moved[0].dtype))
            torch._foreach_sub_(shadows, moved)

    def _decay(self, images: int) -> Tensor:
        """What is kept of the average at this update, a scalar on the device."""
        settings = self.settings
        if settings.half_life is None:
            decay = torch.full_like(self.updates, settings.decay)
            return torch.minimum(decay, (1.0 + self.updates) / (10.0 + self.updates)) if settings.warmup else decay
        half_life = torch.full_like(self.updates, settings.half_life)
        if settings.ramp is not None:
            half_life = torch.minimum(half_life, self.updates * images * settings.ramp)
        return 0.5 ** (images / half_life.clamp_min(1e-8))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within, the model computes with the averaged parameters."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, parameter in self.parameters.items():
            parameter.data, self.shadow[name] = self.shadow[name], parameter.data

    def state_dict(self) -> dict[str, Tensor]:
        """Parameter name -> average."""
        return dict(self.shadow)

    def load_state_dict(self, state: Mapping[str, Tensor], updates: float) -> None:
        """Restores averages and the number of updates.

        Raises:
            ValueError: if the names are not those of the model's trainable parameters.
        """
        if state.keys() != self.shadow.keys():
            odd = ", ".join(sorted(state.keys() ^ self.shadow.keys()))
            raise ValueError(f"averaged weights and model do not fit each other: {odd}")
        for name, value in state.items():
            self.shadow[name].copy_(value)
        self.updates.fill_(updates)
