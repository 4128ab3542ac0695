"""Whether images fit the networks that look at them: channels, sizes, and batches that a normalisation can take.

Frozen networks say what they take (``Extractor.objection``), losses and metrics how small an image may be
(``smallest_size``). None of them is run here: that would cost time and, for pretrained ones, a download.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from smalti.assembly.sections import Recipe, TermSpec
from smalti.config import Problem, Spec
from smalti.data import ImageSource
from smalti.data._buckets import bucket_shapes
from smalti.extractors import Extractor
from smalti.nn.budget import within_budget
from smalti.nn.meta import on_meta_device
from smalti.objectives.names import PREDICTION, TARGET

Shape = tuple[int, int, int]
Placed = Sequence[tuple[str, Any]]

_LARGE = 2**30  # a side of images whose size is not known: large enough for all


def fitness_problems(recipe: Recipe, model: Any, discriminator: Any) -> Iterator[Problem]:
    """What images and batches do not fit, of a recipe whose networks were built on the meta device."""
    trained, held_out = (image_shape(recipe, model, section) for section in ("data", "validation"))
    losses = list(_losses(recipe, model))
    teachers = [(f"objective.teachers.{name}", _built(spec)) for name, spec in recipe.teachers.items()]
    yield from _looked_at(losses, teachers, _large(trained, model))
    yield from _metrics(recipe, held_out, _large(held_out, model))
    yield from _held_out([*losses, *teachers], held_out)
    if trained is not None:
        yield from _lonely(recipe, model, discriminator, trained)


def smallest_side(parts: Iterable[Any]) -> int:
    """The least height and width that all of some losses and networks take, parts of them included."""
    found = [1]
    for part in parts:
        modules = part.modules() if isinstance(part, nn.Module) else (part,)
        found += [size for module in modules if isinstance(size := getattr(module, "smallest_size", 1), int)]
    return max(found)


def _looked_at(losses: Placed, teachers: Placed, shape: Shape) -> Iterator[Problem]:
    """What frozen networks of terms and teachers have against the training images."""
    for place, loss in losses:
        for extractor, channels in _networks(loss):
            said = extractor.objection(shape, channels)
            if said is not None:
                yield Problem(place, f"its network {_name(extractor)}: {said}")
    for place, teacher in teachers:
        if isinstance(teacher, Extractor) and (said := teacher.objection(shape)) is not None:
            yield Problem(place, said)


def _metrics(recipe: Recipe, shape: Shape | None, large: Shape) -> Iterator[Problem]:
    """The same of metrics and held-out images: those of one size must fit, of others some may be left out."""
    section = recipe.specs.get("validation")
    metrics: Mapping[str, Any] = (section.arguments.get("metrics") or {}) if isinstance(section, Spec) else {}
    for name, spec in metrics.items():
        metric, place = None if _holds_source(spec) else _built(spec), f"validation.metrics.{name}"
        networks = [value for value in getattr(metric, "__dict__", {}).values() if isinstance(value, Extractor)]
        for extractor in networks:
            said = extractor.objection(large, getattr(metric, "channels", None))
            if said is not None:
                yield Problem(place, f"its network {_name(extractor)}: {said}")
        least = getattr(metric, "smallest_size", 1)
        if shape is not None and min(shape[1:]) < least and not networks:
            yield Problem(place, f"images of {shape[1]} x {shape[2]} pixels: it needs at least {least} x {least}")


def _held_out(parts: Placed, shape: Shape | None) -> Iterator[Problem]:
    """Held-out images that are cropped to a size which a term or a teacher cannot take: none would be left."""
    if shape is None:
        return
    for place, part in parts:
        least = smallest_side([part])
        if min(shape[1:]) < least:
            message = f"{shape[1]} x {shape[2]} pixels: {place} needs at least {least} x {least}"
            yield Problem("validation.data.transform.size", message)
            return


def _lonely(recipe: Recipe, model: Any, discriminator: Any, shape: Shape) -> Iterator[Problem]:
    """Normalisations that have one value to average: a batch of one, or each image for itself, at a single position."""
    alone = _batch_size(recipe) == 1
    for name, network in (("model", model), ("discriminator", discriminator)):
        parts = list(network.modules()) if isinstance(network, nn.Module) else []
        if not any(isinstance(part, _NormBase if alone else _InstanceNorm) for part in parts):
            continue
        place = _refusing(network, 1 if alone else 2, shape)
        if place is None:
            continue
        part = network.get_submodule(place)
        where = f"{name}.{place} ({type(part).__name__}) has"
        if isinstance(part, _InstanceNorm):
            yield Problem(
                "data.transform.size", f"{shape[1]} x {shape[2]} pixels: {where} a single position to average"
            )
        else:
            advice = "give at least 2, or take another normalisation"
            yield Problem("data.batch_size", f"1: {where} one value for each channel, and no deviation; {advice}")


def _refusing(network: nn.Module, batch: int, shape: Shape) -> str | None:
    """The first normalisation of ``network`` that so small a batch cannot train, by a pass of shapes alone."""
    entered: list[str] = []
    hooks = [
        part.register_forward_pre_hook(lambda _, __, place=place: entered.append(place))
        for place, part in network.named_modules()
        if isinstance(part, _NormBase)
    ]
    training = network.training
    try:
        with on_meta_device(), torch.no_grad():
            network.train()
            _pass(network, batch, shape)
    except ValueError as error:
        return entered[-1] if entered and "more than 1" in str(error) else None
    except Exception:  # a network that cannot be rehearsed on shapes may still train
        return None
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return None


def _pass(network: Any, batch: int, shape: Shape) -> None:
    images = torch.empty(batch, *shape)
    labels = torch.zeros(batch, dtype=torch.int64) if getattr(network, "num_classes", 0) else None
    if not hasattr(network, "training_forward"):
        beside = getattr(network, "condition_channels", 0)
        condition = torch.empty(batch, beside, *shape[1:]) if beside else labels
        network(images) if condition is None else network(images, condition)
        return
    noise_shape = getattr(network, "noise_shape", None)
    noise = {} if noise_shape is None else {"noise": torch.empty(batch, *noise_shape(shape))}
    network.training_forward({"image": images, "label": labels, **noise})


def _losses(recipe: Recipe, model: Any) -> Iterator[tuple[str, nn.Module]]:
    """The losses that look at images of the model or the data, without memory, each with its place."""
    images = {*TARGET, *PREDICTION, "batch.image", getattr(model, "judged", None)}
    for terms in recipe.terms.values():
        for name, term in terms.items():
            loss = _loss(term, name)
            try:
                reads = term.static(name).reads
            except ValueError:  # that is said elsewhere
                continue
            if isinstance(loss, nn.Module) and reads & images:
                yield term.place, loss


def _loss(term: TermSpec, name: str) -> Any:
    try:
        with on_meta_device(), within_budget():
            return term.build(name).loss
    except Exception:  # that is said elsewhere
        return None


def _networks(loss: nn.Module) -> Iterator[tuple[Extractor, Any]]:
    """The frozen networks of a loss and of losses in it, each with the channels that its owner chooses."""
    for owner in loss.modules():
        for child in owner.children():
            if isinstance(child, Extractor) and not isinstance(owner, Extractor):
                yield child, getattr(owner, "channels", None)


def _built(spec: Any) -> Any:
    if not isinstance(spec, Spec):
        return None
    try:
        with on_meta_device(), within_budget():
            return spec.build()
    except Exception:  # that is said elsewhere, or when the run is put together
        return None


def _holds_source(spec: Any) -> bool:
    """Whether building it would read data."""
    arguments = spec.arguments.values() if isinstance(spec, Spec) else ()
    targets = [value.target for value in arguments if isinstance(value, Spec)]
    return any(isinstance(target, type) and issubclass(target, ImageSource) for target in targets)


def _name(extractor: Extractor) -> str:
    return str(getattr(extractor, "name", type(extractor).__name__))


def _batch_size(recipe: Recipe) -> Any:
    section = recipe.specs.get("data")
    return section.arguments.get("batch_size") if isinstance(section, Spec) else None


def _large(shape: Shape | None, model: Any) -> Shape:
    """The shape; where only the channels are known, one of images large enough for all."""
    return shape or (_channels(model), _LARGE, _LARGE)


def _channels(model: Any) -> int:
    return int(getattr(model, "image_channels", 3))  # a model from elsewhere need not say


def image_shape(recipe: Recipe, model: Any, name: str) -> Shape | None:
    """(C, H, W) of the images of a section, of buckets the narrowest; None where whole images are taken."""
    section = recipe.specs.get(name)
    if name == "validation" and isinstance(section, Spec):
        section = section.arguments.get("data")
    transform = section.arguments.get("transform") if isinstance(section, Spec) else None
    size = transform.arguments.get("size") if isinstance(transform, Spec) else None
    if size is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    buckets = transform.arguments.get("buckets") if isinstance(transform, Spec) else None
    if isinstance(buckets, Spec) and isinstance(size, int):
        made = buckets.build()
        height, width = min(bucket_shapes(size, made.step, made.ratio), key=min, default=(size, size))
    return _channels(model), height, width
