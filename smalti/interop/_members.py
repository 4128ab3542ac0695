"""State dicts within what a file holds: trainers put them under names of their own, one or two levels down."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from smalti.interop._reading import prefixes

DEPTH = 3
USUAL = ("model", "state_dict")  # of several that are no averages, the first of these is meant
AVERAGED = re.compile(r"(^|[_.])(ema|averaged?|shadow)([_.]|$)", re.IGNORECASE)
# What torch.compile, fully sharded and checkpointed modules write into names; never a name of a model's own.
WRAPPERS = re.compile(r"(^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")


@dataclass(frozen=True)
class Member:
    """A state dict, and where it stands.

    Args:
        path: names from the outside in; empty if the file is the state dict.
        state: names -> tensors, and whatever else stands between them.
    """

    path: tuple[str, ...]
    state: Mapping[Any, Any]

    @property
    def is_averaged(self) -> bool:
        """Whether its name says that it holds averaged weights.

        >>> [Member((name,), {}).is_averaged for name in ("model_ema", "ema", "params", "schema")]
        [True, True, False, False]
        """
        return is_averaged(".".join(self.path))


def is_averaged(name: str) -> bool:
    """Whether a dotted name speaks of averaged weights."""
    return AVERAGED.search(name) is not None


def unwrapped(state: Mapping[Any, Any]) -> dict[str, Any]:
    """A state dict under the names that the modules had before they were wrapped.

    >>> unwrapped({"module._orig_mod.encoder._orig_mod.conv_in.weight": 1})
    {'module.encoder.conv_in.weight': 1}
    """
    return {WRAPPERS.sub("", str(key)): value for key, value in state.items()}


def members(loaded: Mapping[Any, Any]) -> list[Member]:
    """The state dicts of models that are read, the outermost of each branch; averaged ones first, then the usual."""
    found = list(_within(loaded, ()))
    return sorted(found, key=lambda one: (not one.is_averaged, _rank(one)))


def _rank(member: Member) -> int:
    return next((n for n, name in enumerate(USUAL) if member.path[:1] == (name,)), len(USUAL))


def _within(loaded: Mapping[Any, Any], path: tuple[str, ...]) -> Iterator[Member]:
    names = [WRAPPERS.sub("", str(key)) for key, value in loaded.items() if isinstance(value, Tensor)]
    if prefixes(names) or (path[-1:] and path[-1] in (*USUAL, "ema") and names):
        yield Member(path, loaded)
        return
    for key, value in loaded.items() if len(path) < DEPTH else ():
        if isinstance(value, Mapping):
            yield from _within(value, (*path, str(key)))
