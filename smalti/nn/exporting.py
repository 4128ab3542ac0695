"""What ``torch.export`` needs to be told: which dataclasses hold tensors, and where a program must not be fixed.

torch opens tuples, lists and dicts by itself; a dataclass is opaque to it (and to ``tree_map``) until its fields are
named.
"""

import dataclasses
from collections.abc import Hashable, Iterable
from typing import Any, TypeVar

import torch
from torch.utils import _pytree as pytree

_C = TypeVar("_C")

Context = tuple[tuple[str, ...], tuple[tuple[str, Hashable], ...]]


def register_container(cls: type[_C]) -> type[_C]:
    """Registers a dataclass, as a decorator above ``@dataclass``; its fields are what it contains.

    A field that holds a ``frozenset`` of words is a fact about the tensors and none of them: it belongs to the kind of
    the container, so that only containers with equal ones have the same structure.

    >>> import torch
    >>> @register_container
    ... @dataclasses.dataclass
    ... class Pair:
    ...     one: torch.Tensor
    ...     other: torch.Tensor
    >>> pytree.tree_map(lambda tensor: tensor + 1, Pair(torch.tensor(1), torch.tensor(2)))
    Pair(one=tensor(2), other=tensor(3))
    """
    pytree.register_pytree_node(
        cls,
        _flatten,
        lambda values, context: _rebuild(cls, values, context),
        serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
        flatten_with_keys_fn=_flatten_with_keys,
        to_dumpable_context=_dumpable,
        from_dumpable_context=_from_dumpable,
    )
    return cls


def is_exporting() -> bool:
    """Whether ``torch.export`` is tracing, which torch before 2.7 does not tell from ``torch.compile``.

    What depends on a size (a loop over rows, a shortcut for one grid) would be a condition of the exported program.
    """
    asked = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    return bool(asked())


def _flatten(value: Any) -> tuple[list[Any], Context]:
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
    facts = {name: item for name, item in fields.items() if isinstance(item, frozenset)}
    names = tuple(name for name in fields if name not in facts)
    return [fields[name] for name in names], (names, tuple(facts.items()))


def _flatten_with_keys(value: Any) -> tuple[list[tuple[Any, Any]], Context]:
    values, context = _flatten(value)
    return [(pytree.GetAttrKey(name), item) for name, item in zip(context[0], values, strict=True)], context


def _rebuild(cls: type[_C], values: Iterable[Any], context: Context) -> _C:
    names, facts = context
    return cls(**dict(zip(names, values, strict=True)), **dict(facts))


def _dumpable(context: Any) -> Any:
    names, facts = context
    return [list(names), {name: sorted(words) for name, words in facts}]


def _from_dumpable(dumped: Any) -> Any:
    names, facts = dumped
    return tuple(names), tuple((name, frozenset(words)) for name, words in facts.items())
