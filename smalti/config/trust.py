"""Whether a configuration may name code: one that comes with weights is data, one that the user wrote is trusted.

A recipe is the user's own and may name classes of theirs by import path. The configuration of a saved model, of a
converted discriminator, of a run from elsewhere came with its weights: only registered parts, anywhere in it, unless
the user says that its source is trusted.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from smalti.registry import UserError, shown

OPTION = "--trust-code (in Python trust_code=True)"


def refusal(name: object, trust_code: bool) -> str | None:
    """Why ``type: name`` may not be resolved; None if it may. Every way in asks here.

    >>> refusal("conv", False), refusal("subprocess.Popen", True)
    (None, None)

    Args:
        name: what stands after ``type:``.
        trust_code: whether the user trusts where the configuration comes from.
    """
    if trust_code or not isinstance(name, str) or "." not in name:
        return None
    return f"{shown(name)} would import code: {OPTION} allows it, if you trust where it comes from"


def require_registered(config: Any, source: object, trust_code: bool) -> None:
    """Refuses a configuration that names code anywhere in it, before anything of it is merged, resolved or built.

    Args:
        config: mappings and lists inside each other.
        source: where it comes from, for the message.
        trust_code: whether the user trusts it.

    Raises:
        UserError: naming the first place that would import code, and the option that allows it.
    """
    for place, name in _types(config, ""):
        why = refusal(name, trust_code)
        if why is not None:
            raise UserError(f"{source}: {place}: {why}")


def _types(value: Any, place: str) -> Iterator[tuple[str, object]]:
    """Every ``type`` in it, with its place; what is below a certain depth was refused when it was read."""
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, (list, tuple)):
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        return
    for key, item in items:
        here = f"{place}.{key}" if place else key
        if key == "type":
            yield here, item
        yield from _types(item, here)
