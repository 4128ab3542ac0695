"""Parts that are set once, by the first batch they see in training: ActNorm, and a codebook that k-means starts."""

from typing import Any

from torch import Tensor, nn


class StartsOnData(nn.Module):
    """Base of modules with a start; a subclass with one registers the buffer ``initialized``, false until then.

    In its first forward pass in training mode, before it computes anything, such a module sets itself from the batches
    of all ranks, so that all start equal. Evaluation never starts it, nor does a batch without finite values. The start
    is part of the state dict, is not repeated after a resume, and stays when the step it happened in is skipped.
    """

    def __init__(self) -> None:
        super().__init__()
        # Spares reading the buffer, which waits for the device, at every call.
        self._known_started = False

    def waits_for_data(self) -> bool:
        """Whether this pass is to start the module; equal on all ranks."""
        initialized = self._buffers.get("initialized")
        if not self.training or self._known_started or initialized is None or initialized.is_meta:
            return False
        self._known_started = bool(initialized)
        return not self._known_started

    def note_start(self) -> None:
        """To be called once the module has set itself."""
        self.get_buffer("initialized").fill_(True)
        self._known_started = True

    def has_started_since(self, before: Tensor) -> Tensor:
        """Whether it started since ``before``, a copy of its buffer ``initialized``; a boolean scalar."""
        return self.get_buffer("initialized").bool() & ~before.bool()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self._known_started = False
        super()._load_from_state_dict(state_dict, prefix, *args)
