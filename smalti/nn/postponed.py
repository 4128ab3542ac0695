"""Checks of values on a device, for which a training step does not wait: what was seen stays there until it is read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

Complain = Callable[[float, float], None]


class Postponed:
    """The least and the greatest value that each check has seen since it was last read, two numbers on the device.

    Example:
        >>> def complain(least: float, most: float) -> None:
        ...     raise ValueError(f"from {least:g} to {most:g}")
        >>> checks = Postponed()
        >>> with checks.collecting():
        ...     judge(torch.tensor([0.0, 3.0]), "height", complain)
        >>> checks.read()
        Traceback (most recent call last):
        ...
        ValueError: from 0 to 3
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[object, torch.device], tuple[Tensor, Complain]] = {}

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Within, :func:`judge` leaves its values here."""
        before = list(_active)
        _active[:] = [self]
        try:
            yield
        finally:
            _active[:] = before

    @torch.no_grad()
    def note(self, values: Tensor, key: object, complain: Complain) -> None:
        """Keeps the extremes of ``values`` of any shape, as if they were another part of those of ``key`` before."""
        least, most = values.detach().aminmax()
        ends = torch.stack([-least, most]).double()
        place = key, values.device
        if place not in self._seen:
            self._seen[place] = (torch.full_like(ends, -torch.inf), complain)
        seen = self._seen[place][0]
        seen.copy_(torch.fmax(seen, ends))  # in place, so that a recorded step writes to it too; nan is passed over

    def read(self) -> None:
        """Complains of what was seen since the last time, once; waits for the device."""
        for seen, complain in self._seen.values():
            least, most = seen.tolist()
            seen.fill_(-torch.inf)
            if most > -torch.inf:
                complain(-least, most)


_active: list[Postponed] = []


def judge(values: Tensor, key: object, complain: Complain) -> None:
    """Lets ``complain`` look at the least and the greatest of ``values``, now, or when a step's checks are read.

    Args:
        values: of any shape, not empty.
        key: names the check.
        complain: raises for extremes that it does not like.
    """
    if _active:
        _active[0].note(values, key, complain)
        return
    least, most = (value.item() for value in values.detach().aminmax())
    complain(least, most)
