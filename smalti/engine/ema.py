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
    def update(self, skip: Tensor | None = None) -> None:
        """Moves the average towards the parameters, unless the scalar tensor ``skip`` is not zero."""
        went = torch.ones_like(self.updates) if skip is None else 1.0 - skip.to(self.updates)
        self.updates += went
        decay = torch.full_like(self.updates, self.settings.decay)
        if self.settings.warmup:
            decay = torch.minimum(decay, (1.0 + self.updates) / (10.0 + self.updates))
        share = (1.0 - decay) * went
        names = list(self.shadow)
        for start in range(0, len(names), CHUNK):
            chunk = names[start : start + CHUNK]
            shadows = [self.shadow[name] for name in chunk]
            moved = torch._foreach_sub(shadows, [self.parameters[name].detach() for name in chunk])
            torch._foreach_mul_(moved, share.to(moved[0].dtype))
            torch._foreach_sub_(shadows, moved)

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
