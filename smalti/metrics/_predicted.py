"""What metrics see of a model that predicts tokens, and which metrics are of such a model."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from smalti.metrics import Metric, Prediction
from smalti.outputs import predicts_tokens
from smalti.registry import UserError, names, resolve

TOKENS, IMAGES = "tokens", "images"


def observe_predicted(model: Any, batch: Mapping[str, Any], factor: int | None) -> Prediction:
    """The bits that a model needs for the tokens ``indices`` (B, G, h, w) of ``batch``.

    Args:
        model: predicts tokens, in evaluation mode.
        batch: on its device.
        factor: pixels per place along each side; None: not known.
    """
    return Prediction.of(model.training_forward(batch), factor)


def unfit(metric: Any, model: Any) -> str | None:
    """Why a metric, or its class, is not one of ``model``, or its class; None if it is.

    Args:
        metric: a metric.
        model: what is to be measured.
    """
    observes = getattr(metric, "observes", frozenset({IMAGES}))
    wanted = TOKENS if predicts_tokens(model) else IMAGES
    if wanted in observes:
        return None
    if wanted == IMAGES:
        return "is of models that predict tokens, and this model makes images"
    others = ", ".join(name for name in names(Metric) if TOKENS in getattr(resolve(name, Metric), "observes", ()))
    return f"measures images, and this model predicts tokens; of those are {others}"


def require_fit(metrics: Mapping[str, Metric] | Sequence[Metric], model: nn.Module) -> None:
    """Refuses metrics that are not of ``model``.

    Raises:
        UserError: naming the first of them.
    """
    named = metrics if isinstance(metrics, Mapping) else {type(metric).__name__: metric for metric in metrics}
    for name, metric in named.items():
        said = unfit(metric, model)
        if said is not None:
            raise UserError(f"metrics.{name}: it {said}")
