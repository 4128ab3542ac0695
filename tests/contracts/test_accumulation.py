"""What every loss says of micro-batches is so: it is the mean of theirs, unless it looks at the batch as a whole.

Each loss is compared with its own two halves, with every choice of its options and every optional input.
"""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from smalti.config.schema import option_parameters
from smalti.discriminators.stylegan2 import MinibatchDeviation
from smalti.losses import Loss
from smalti.objectives.catalogue import batch_table, catalogue
from smalti.objectives.term import loss_arguments
from smalti.outputs import LossValue
from smalti.registry import UserError, short_name
from tests.contracts import examples

BATCH = 4
LOSSES = [pytest.param(cls, id=f"{short_name(cls)}-{cls.__name__}") for cls in examples.registered(Loss)]
PAGE = Path(__file__).parents[2] / "docs" / "several-processes.md"


@pytest.fixture(autouse=True)
def larger_batch_and_equal_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sample draws the same, so that halves differ from the whole by what they look at alone."""
    monkeypatch.setattr(examples, "BATCH", BATCH)
    rand = torch.rand

    def equal(*size: Any, **how: Any) -> Tensor:
        if "generator" in how:  # of the inputs
            return rand(*size, **how)
        return torch.full(size if isinstance(size[0], int) else tuple(size[0]), 0.3, **how)

    monkeypatch.setattr(torch, "rand", equal)
    monkeypatch.setattr(torch, "randint", lambda low, high, size, **how: torch.full(size, high - 1, **how))
    monkeypatch.setattr(torch, "rand_like", lambda like, **how: torch.full_like(like, 0.3, **how))
    monkeypatch.setattr(torch, "randn_like", lambda like, **how: torch.full_like(like, 0.7, **how))


def part(value: Any, rows: slice) -> Any:
    """Some samples of an input."""
    if isinstance(value, Tensor):
        return value[rows] if value.ndim and len(value) == BATCH else value
    if isinstance(value, Mapping):
        return {key: part(item, rows) for key, item in value.items()}
    if isinstance(value, tuple):
        return value[rows] if value and isinstance(value[0], str) else tuple(part(item, rows) for item in value)
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return dataclasses.replace(value, **{name: part(getattr(value, name), rows) for name in names})
    return value


def variants(cls: type[Loss]) -> Iterator[dict[str, Any]]:
    """Options: the defaults, and every other choice of one; numbers also as 0, where a loss takes that."""
    yield {}
    hints = typing.get_type_hints(cls.__init__)
    for name, parameter in option_parameters(cls).items():
        if name == "kernel":  # how it is computed
            continue
        if typing.get_origin(hints[name]) is typing.Literal:
            yield from ({name: choice} for choice in typing.get_args(hints[name]) if choice != "none")
        elif hints[name] is bool and name != "gather":
            yield {name: not parameter.default}
        elif hints[name] is float:
            yield {name: 0.0}


def bound(cls: type[Loss]) -> Iterator[dict[str, Any]]:
    """Inputs: the required ones, and one of the optional ones beside them."""
    required = examples.inputs_of(cls.forward)
    yield required
    for name, needed in loss_arguments(cls).items():
        if needed:
            continue
        if name == "weight":
            yield required | {name: torch.tensor([0.5, 1.0, 2.0, 0.25], dtype=torch.float64)}
        elif name not in {"epsilon", "noise"}:  # what is drawn where it is not given
            yield required | {name: examples.value_of("mask" if name == "attention" else name)}


def value(loss: Loss, inputs: Mapping[str, Any]) -> Tensor:
    found = loss(**inputs)
    return (found.total if isinstance(found, LossValue) else found).detach()


@pytest.mark.parametrize("cls", LOSSES)
def test_a_loss_is_the_mean_of_its_micro_batches_or_says_what_it_looks_at(cls: type[Loss]) -> None:
    compared = 0
    for options in variants(cls):
        try:
            loss = cls(**{**examples.options_of(cls), **options}).double()
        except ValueError:
            continue
        for inputs in bound(cls):
            try:
                whole = value(loss, inputs)
            except UserError:  # these small images do not fit this choice
                continue
            halves = [value(loss, part(inputs, rows)) for rows in (slice(0, 2), slice(2, 4))]
            is_mean = torch.allclose(whole, torch.stack(halves).mean(), rtol=1e-9, atol=1e-12)
            said = loss.looks_at(inputs)
            if said and torch.allclose(*halves):  # nothing can be told from equal halves
                continue
            assert is_mean == (not said), f"{options} with {sorted(inputs)}: {whole} of {halves}; it says {said!r}"
            compared += 1
    assert compared


def test_the_page_has_the_table_that_the_classes_give() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert batch_table(catalogue()) in page
    assert MinibatchDeviation.batch_statistics in page
