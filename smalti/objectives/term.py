"""A term: a named, weighted loss and where its inputs come from.

>>> import torch
>>> from smalti.objectives.term import Term
>>> def scaled_l1(prediction, target, *, scale=1.0):
...     return scale * (prediction - target).abs().mean()
>>> term = Term(name="pixel", loss=scaled_l1, inputs={"target": "batch.clean"}, weight=2.0)
>>> term.bindings
{'prediction': 'prediction', 'target': 'batch.clean'}
>>> term({"prediction": torch.ones(2), "batch.clean": torch.zeros(2)}).total
tensor(1.)
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from torch import Tensor, nn

from smalti.objectives.balance import Adaptive
from smalti.objectives.weight import Schedule
from smalti.outputs import LossValue
from smalti.registry import UserError, suggest

SAMPLE_WEIGHT = "weight"  # the input of a loss that carries sample weights: an adaptive weight's reference drops it


@dataclass(frozen=True, kw_only=True)
class TermOptions(Schedule):
    """The fields of a term that are not its loss's: what a recipe may write beside ``type`` and the options.

    Args:
        inputs: argument of the loss -> context name; by default an argument takes the context value of its own name.
        adaptive: multiplies the weight by a gradient-balance factor.
        role: ``log`` reports the term and never optimises it.
        merge: ``sum`` adds a term to the one of the same name; without it two terms of one name are an error.
    """

    inputs: Mapping[str, str] = field(default_factory=dict)
    adaptive: Adaptive | None = None
    role: Literal["optimize", "log"] = "optimize"
    merge: Literal["sum"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.role not in ("optimize", "log"):
            raise ValueError(f"role={self.role!r}: expected 'optimize' or 'log'")
        if self.merge not in (None, "sum"):
            raise ValueError(f"merge={self.merge!r}: expected 'sum' or nothing")

    def bind(self, name: str, loss: Callable[..., Any]) -> "Term":
        """The term ``name`` of ``loss`` with these options."""
        options = {option.name: getattr(self, option.name) for option in fields(TermOptions)}
        return Term(name=name, loss=loss, **options)


@dataclass(frozen=True, kw_only=True)
class Term(TermOptions):
    """A named, weighted loss: ``weight(clock) * loss(inputs)``.

    Args:
        name: how it is reported.
        loss: a ``Loss``, any module, or a function whose positional arguments are inputs (bind its keyword-only
            options with ``functools.partial``). A class stands for its instances, in a static check only.
    """

    name: str
    loss: Callable[..., Any]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name or not self.name.replace("-", "_").isidentifier():
            raise ValueError(
                f"name={self.name!r}: expected letters, digits, '_' and '-' (it becomes part of a log name)"
            )

    @functools.cached_property
    def arguments(self) -> dict[str, bool]:
        """Input of the loss -> whether it must be given."""
        return loss_arguments(self.loss)

    @functools.cached_property
    def bindings(self) -> dict[str, str]:
        """Input of the loss -> context name: all required ones, and the optional ones that ``inputs`` maps."""
        wanted = {name for name, required in self.arguments.items() if required} | set(self.inputs)
        return {name: self.inputs.get(name, name) for name in self.arguments if name in wanted}

    @functools.cached_property
    def reads(self) -> frozenset[str]:
        """The context names that it asks for."""
        return frozenset(self.bindings.values())

    def __call__(self, values: Mapping[str, Any] | None = None, /, **inputs: Any) -> LossValue:
        """Evaluates the loss, without the term's weight.

        Args:
            values: context name -> value, or
            inputs: the loss's own arguments by name. One of the two.

        Raises:
            UserError: if both or neither are given, one is missing or unknown, or the loss returns no scalar.
        """
        if (values is None) == (not inputs):
            what = "both" if inputs else "neither"
            raise UserError(f"term {self.name!r}: expected one mapping or named tensors, got {what}")
        if values is not None:
            return self.evaluate(self._take(values, self.bindings))
        unknown = [name for name in inputs if name not in self.arguments]
        if unknown:
            raise UserError(f"term {self.name!r}: unknown input {unknown[0]!r}{suggest(unknown[0], self.arguments)}")
        needed = {name: name for name, required in self.arguments.items() if required} | {name: name for name in inputs}
        return self.evaluate(self._take(inputs, needed))

    def _take(self, values: Mapping[str, Any], bindings: Mapping[str, str]) -> dict[str, Any]:
        missing = sorted({source for source in bindings.values() if source not in values})
        if missing:
            raise UserError(
                f"term {self.name!r}: no value for {', '.join(map(repr, missing))}; given: {sorted(values)}"
            )
        return {name: values[source] for name, source in bindings.items()}

    def evaluate(self, arguments: Mapping[str, Any]) -> LossValue:
        """Calls the loss with its own arguments by name; the result always as a ``LossValue``."""
        result = self.loss(**arguments)
        value = result if isinstance(result, LossValue) else LossValue(total=result)
        if not isinstance(value.total, Tensor):
            raise UserError(f"term {self.name!r}: the loss returned {value.total!r}, expected a scalar tensor")
        if value.total.ndim:
            shape = tuple(value.total.shape)
            raise UserError(
                f"term {self.name!r}: the loss returned shape {shape}, expected a scalar; set its reduction"
            )
        return value

    def unweighted(self, value: LossValue, arguments: Mapping[str, Any]) -> Tensor:
        """The loss without sample weights, a scalar: ``value`` itself when none are bound."""
        if SAMPLE_WEIGHT not in self.inputs or self.arguments.get(SAMPLE_WEIGHT, True):
            return value.total
        if value.unweighted is not None:
            return value.unweighted
        rest = {name: argument for name, argument in arguments.items() if name != SAMPLE_WEIGHT}
        return self.evaluate(rest).total

    @property
    def parameters(self) -> tuple[nn.Parameter, ...]:
        """The learned parameters of its loss, such as a scale."""
        if not isinstance(self.loss, nn.Module):
            return ()
        return tuple(parameter for parameter in self.loss.parameters() if parameter.requires_grad)


def loss_arguments(loss: Callable[..., Any]) -> dict[str, bool]:
    """Input name -> whether it is required, of a module, a function, or the class of a module.

    Of a module these are the arguments of ``forward``; of a function the positional ones, as keyword-only arguments
    are options.

    >>> loss_arguments(nn.L1Loss)
    {'input': True, 'target': True}
    """
    made: type | None = loss if inspect.isclass(loss) else None
    is_module = isinstance(loss, nn.Module) if made is None else issubclass(made, nn.Module)
    function = getattr(loss, "forward" if is_module else "__call__", loss) if is_module or made is not None else loss
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise UserError(f"cannot read the arguments of {loss!r}: {error}") from error
    skipped = 0 if made is None else 1  # self
    options = () if is_module else (inspect.Parameter.KEYWORD_ONLY,)
    ignored = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD, *options}
    inputs = [parameter for parameter in parameters[skipped:] if parameter.kind not in ignored]
    return {parameter.name: parameter.default is inspect.Parameter.empty for parameter in inputs}
