"""Looking at a run must never end it: what fails is told once, and not asked again."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")


class Safely:
    """Calls what measures something; what raised once is left out from then on.

    >>> careful = Safely()
    >>> careful("images", lambda: {"min": 1 / 0}), careful("images", lambda: {"min": 1.0})
    ({}, {})
    >>> careful.failed
    {'images': 'ZeroDivisionError: division by zero'}
    """

    def __init__(self) -> None:
        self.failed: dict[str, str] = {}

    def __call__(self, name: str, make: Callable[[], Mapping[str, Any]]) -> dict[str, Tensor | float]:
        """What ``make`` gives, empty if it fails or did before."""
        if name in self.failed:
            return {}
        try:
            return dict(make())
        except Exception as error:  # whatever it is, training goes on
            self._failed(name, error)
            return {}

    def do(self, name: str, action: Callable[[T], None], given: T) -> None:
        """Does ``action`` with what is given, unless it failed before."""
        if name not in self.failed:
            try:
                action(given)
            except Exception as error:  # whatever it is, training goes on
                self._failed(name, error)

    def _failed(self, name: str, error: Exception) -> None:
        self.failed[name] = f"{type(error).__name__}: {error}"
