"""What "best" means: whether a larger or a smaller value of what a run monitors is better.

A metric says it itself (``higher_is_better``), and so do its parts (``<metric>_<part>``); of a loss less is better.
"""

from collections.abc import Mapping
from typing import Any, Literal

from smalti.registry import UserError, suggest

Mode = Literal["max", "min"]
LOSSES = ("total", "raw", "weighted")


def mode_of(monitor: str, mode: Mode | None, metrics: Mapping[str, Any]) -> Mode:
    """The mode of a monitored value.

    >>> mode_of("generator/total", None, {})
    'min'

    Args:
        monitor: name of the value, as in the log without "val/".
        mode: what the recipe says of it, or None.
        metrics: name -> metric, or its class.

    Raises:
        UserError: if there is no such metric, if it cannot be monitored, if ``mode`` contradicts what is known, or if
            nothing is known and ``mode`` is None.
    """
    words = monitor.split("/")
    if len(words) > 1:
        known: Mode | None = "min" if words[-1] in LOSSES else None
        what = "losses are better when smaller"
    else:
        name = _metric_of(monitor, metrics)
        metric = metrics[name]
        higher = getattr(metric, "higher_is_better", None)
        if higher is None and _is_ours(metric):
            raise UserError(f"{monitor!r} cannot be monitored: neither a larger nor a smaller value is better")
        known = None if higher is None else "max" if higher else "min"
        what = f"{name} is better when {'larger' if higher else 'smaller'}"
    if known is None and mode is None:
        raise UserError(f"whether a larger or a smaller {monitor!r} is better is not known: say mode: max or mode: min")
    if known is not None and mode is not None and mode != known:
        raise UserError(f"mode={mode!r}: expected {known!r}, {what}")
    return mode or known or "max"


def _metric_of(monitor: str, metrics: Mapping[str, Any]) -> str:
    fitting = [name for name in metrics if monitor == name or monitor.startswith(f"{name}_")]
    if not fitting:
        raise UserError(f"{monitor!r} is not among the metrics{suggest(monitor, metrics)}")
    return max(fitting, key=len)


def _is_ours(metric: Any) -> bool:
    cls = metric if isinstance(metric, type) else type(metric)
    return cls.__module__.startswith("smalti.")
