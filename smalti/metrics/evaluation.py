"""Evaluation: a model, images it never saw, and metrics; one pass, one encoding for each batch."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from smalti.data.loader import to_device
from smalti.metrics import Metric, Observation, Prediction
from smalti.metrics._ablations import at_means
from smalti.metrics._made import makes_images, observe_made
from smalti.metrics._predicted import observe_predicted, require_fit
from smalti.nn.distributed import all_reduce_sum
from smalti.nn.padding import pad_to_multiple
from smalti.outputs import BottleneckOutput, batch_size, predicts_tokens
from smalti.registry import UserError, short_name


class Tokenizer(Protocol):
    """What evaluation asks of a model, besides being an ``nn.Module``."""

    @property
    def factor(self) -> int:
        """Pixels per latent position along each side."""

    @property
    def codebook_sizes(self) -> Mapping[str, int]:
        """Name -> number of codes, in the order of the tokens."""

    def encode(self, images: Tensor) -> BottleneckOutput:
        """Images (B, C, H, W) in [-1, 1], H and W divisible by ``factor``, to a latent and tokens."""

    def decode(self, latent: Tensor) -> Tensor:
        """Latents (B, C', h, w) to images (B, C, H, W)."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found.

    Args:
        values: name -> number over all images of all ranks.
        images: a row for each image of this rank, in order: ``index``, ``name`` if names were given, and the numbers
            that a single image has. Plain values, ready for JSON or CSV.
        left_out: name of a metric -> how many images of all ranks it could not take, and why; those without any apart.
        cautions: name of a metric -> what to know beside its numbers; those with nothing to say apart.
    """

    values: Mapping[str, float]
    images: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    left_out: Mapping[str, str] = field(default_factory=dict)
    cautions: Mapping[str, str] = field(default_factory=dict)


def evaluate(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    metrics: Mapping[str, Metric] | Sequence[Metric],
    device: torch.device | str | None = None,
) -> dict[str, float]:
    """Name -> number over all images: see :func:`examine`, of which this is the summary."""
    return dict(examine(model, batches, metrics, device).values)


def examine(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    metrics: Mapping[str, Metric] | Sequence[Metric],
    device: torch.device | str | None = None,
    names: Sequence[str] = (),
    factor: int | None = None,
) -> Evaluation:
    """Measures the reconstructions of all images, or the predictions of all tokens, in evaluation mode.

    Images whose sides the model's factor does not divide are padded right and bottom, and the reconstruction is cut
    back; the padding's tokens count, since they must be stored. Random numbers, where a model draws any, are the same
    every time and leave the global generators alone. With several ranks each one measures its own batches and gets the
    numbers of all. Images below a metric's ``smallest_size`` are left out of that metric; one that is left none has no
    number.

    Args:
        model: satisfies :class:`Tokenizer`, makes images from noise, or predicts tokens; left in the mode it was in.
        batches: ``image`` uint8, or in [-1, 1], with shape (B, C, H, W), or whatever else the model reads, and
            ``index`` (B,), as ``smalti.data.loader.evaluation_batches`` gives.
        metrics: name -> metric, or metrics, which are called by their short names.
        device: where to; None for where the model is.
        names: names of the items of the source, for the rows.
        factor: of tokens, pixels per place along each side, if that is known.

    Raises:
        UserError: if two metrics give numbers of one name, one is not of such a model, or there is no item at all.
    """
    require_fit(metrics, model)
    weight = next(model.parameters(), torch.zeros(()))
    device = weight.device if device is None else torch.device(device)
    examination = Examination(metrics, _codebook_sizes(model), device, names)
    with evaluating(model, device):
        for batch in batches:
            moved = to_device(dict(batch), device)
            if predicts_tokens(model):
                examination.feed(batch, observe_predicted(model, moved, factor))
            elif makes_images(model):
                examination.feed(batch, observe_made(model, moved, weight.dtype))
            else:
                examination.feed(batch, observe(tokenizer_of(model), moved["image"], weight.dtype))
        return examination.result()


def _codebook_sizes(model: Any) -> Mapping[str, int]:
    """Name -> number of codes of what a model chooses or predicts; nothing of one that makes images from noise."""
    if predicts_tokens(model):
        codebooks: Mapping[str, int] = model.codebooks
        return codebooks
    return {} if makes_images(model) else tokenizer_of(model).codebook_sizes


def tokenizer_of(model: Any) -> Tokenizer:
    """The model, as one that satisfies :class:`Tokenizer`."""
    tokenizer: Tokenizer = model
    return tokenizer


class Examination:
    """The accumulators of some metrics, fed batch by batch; it can be saved in between and gone on with.

    Args:
        metrics: name -> metric, or metrics, which are called by their short names.
        codebook_sizes: name -> number of codes of the model.
        device: where batches come from.
        names: names of the items of the source, for the rows.
    """

    def __init__(
        self,
        metrics: Mapping[str, Metric] | Sequence[Metric],
        codebook_sizes: Mapping[str, int],
        device: torch.device,
        names: Sequence[str] = (),
    ) -> None:
        by_name = metrics if isinstance(metrics, Mapping) else {short_name(type(metric)): metric for metric in metrics}
        self.metrics, self.device, self.names = by_name, device, names
        _require_torchmetrics()
        self.accumulators = {name: metric.create().to(device) for name, metric in by_name.items()}
        for name, metric in by_name.items():
            metric.begin(self.accumulators[name], codebook_sizes)
        self.rows: list[dict[str, Any]] = []
        self.small = dict.fromkeys(by_name, 0)

    def feed(self, batch: Mapping[str, Any], observation: Observation | Prediction) -> None:
        """Measures a batch of images (B, C, H, W), or tokens (B, G, h, w); ``index`` (B,) finds their names, if any."""
        count = batch_size(batch) if isinstance(observation, Prediction) else len(observation.target)
        taken = {name: metric for name, metric in self.metrics.items() if _fits(metric, observation)}
        for name in self.metrics.keys() - taken.keys():
            self.small[name] += count
        with _naming(batch, self.names):
            found = _update(taken, self.accumulators, observation)
        self.rows += _rows(batch, found, count, self.names)

    def result(self) -> Evaluation:
        """The numbers of all ranks, and the rows of this one.

        Raises:
            UserError: if two metrics give numbers of one name, or there was no image at all.
        """
        counted = torch.tensor([len(self.rows), *self.small.values()], device=self.device)
        total, *without = all_reduce_sum(counted).tolist()
        if not total:
            raise UserError("no image to evaluate on")
        counts = dict(zip(self.small, without, strict=True))
        values: dict[str, float] = {}
        measured = {name: metric for name, metric in self.metrics.items() if counts[name] < total}
        for name, metric in measured.items():
            values |= _numbers(name, metric, _computed(self.accumulators[name]), taken=values)
        left_out = {name: _too_small(self.metrics[name], count, total) for name, count in counts.items() if count}
        cautions = {name: "; ".join(metric.warnings(self.accumulators[name])) for name, metric in measured.items()}
        said = {name: text for name, text in cautions.items() if text}
        return Evaluation(values=values, images=tuple(self.rows), left_out=left_out, cautions=said)


def _require_torchmetrics() -> None:
    try:
        import torchmetrics  # noqa: F401
    except (ImportError, RuntimeError) as error:  # not ours, and not to be reported to us
        raise UserError(
            f"torchmetrics cannot be imported: {error}. A torchvision that does not fit the installed torch breaks it, "
            "and so does torch-fidelity without one: pip uninstall torchvision torch-fidelity"
        ) from error


def _fits(metric: Metric, observation: Observation | Prediction) -> bool:
    """Whether a metric takes images of this size; of tokens it takes all."""
    return isinstance(observation, Prediction) or min(observation.target.shape[-2:]) >= _smallest(metric)


def _smallest(metric: Metric) -> int:
    return int(getattr(metric, "smallest_size", 1))  # a metric from elsewhere need not say


def _too_small(metric: Metric, count: int, total: int) -> str:
    least = _smallest(metric)
    return f"{count} of {total} images are left out, it needs at least {least} x {least} pixels"


@contextmanager
def _naming(batch: Mapping[str, Any], names: Sequence[str]) -> Iterator[None]:
    """Within, what a metric refuses is told with the name of the batch's first image."""
    try:
        yield
    except UserError as error:
        if not names or "index" not in batch:
            raise
        raise UserError(f"{names[int(batch['index'][0])]}: {error}") from error


def observe(model: Tokenizer, images: Tensor, dtype: torch.dtype = torch.float32, network: Any = None) -> Observation:
    """What metrics see of ``images`` with shape (B, C, H, W) in [-1, 1]; the model works in ``dtype``.

    ``network`` is what may decode codebooks apart, where it is not the model itself.
    """
    height, width = images.shape[-2:]
    bottleneck = model.encode(pad_to_multiple(images.to(dtype), model.factor))

    def cut(make: Callable[[], Tensor]) -> Tensor:
        return make()[..., :height, :width].to(images.dtype)

    return Observation(
        target=images,
        reconstruction=cut(lambda: model.decode(bottleneck.latent)),
        bottleneck=bottleneck,
        codebook_sizes=model.codebook_sizes,
        ablations={name: partial(cut, make) for name, make in at_means(network or model, bottleneck.latent).items()},
    )


@contextmanager
def evaluating(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Within, the model is on the device in evaluation mode, without gradients, and draws the same random numbers."""
    modes = [(module, module.training) for module in model.modules()]
    model.to(device).eval()
    try:
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.default_generator.manual_seed(0)
            if device.type == "cuda":
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(0)
            yield
    finally:
        for module, training in modes:
            module.training = training


def _update(
    metrics: Mapping[str, Metric], accumulators: Mapping[str, Any], observation: Observation | Prediction
) -> dict[str, Tensor]:
    """Feeds a batch to all accumulators; name -> one value for each image (B,), of the metrics that have such."""
    found: dict[str, Tensor] = {}
    for name, metric in metrics.items():
        values = metric.per_image(observation)
        if values:
            accumulators[name].update(values)
        else:
            metric.update(accumulators[name], observation)
        found |= _called(name, metric, values)
    return found


def _computed(accumulator: Any) -> Any:
    with warnings.catch_warnings():  # a rank without a batch is no mistake, that there is no image at all was checked
        warnings.filterwarnings("ignore", message="The ``compute`` method")
        return accumulator.compute()


def _called(name: str, metric: Metric, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values under the name the metric was given: ``{best: {type: psnr}}`` gives ``best`` instead of ``psnr``."""
    own = short_name(type(metric))
    return {name + key.removeprefix(own) if key.startswith(own) else key: value for key, value in values.items()}


def _numbers(name: str, metric: Metric, computed: Any, taken: Mapping[str, float]) -> dict[str, float]:
    """Flat names -> numbers of one accumulator; a single tensor is called by the metric's name."""
    found = _called(name, metric, computed if isinstance(computed, Mapping) else {name: computed})
    twice = sorted(found.keys() & taken.keys())
    if twice:
        raise UserError(f"metrics.{name}: another metric gives {twice[0]!r} already")
    return {key: float(value) for key, value in found.items()}


def _rows(
    batch: Mapping[str, Any], values: Mapping[str, Tensor], size: int, names: Sequence[str]
) -> list[dict[str, Any]]:
    """One row for each of the ``size`` images of a batch, with its ``values`` (B,)."""
    rows: list[dict[str, Any]] = [{} for _ in range(size)]
    if "index" in batch:
        indices = batch["index"].tolist()
        rows = [{"index": index, **({"name": names[index]} if names else {})} for index in indices]
    for name, numbers in values.items():
        for row, number in zip(rows, numbers.tolist(), strict=True):
            row[name] = number
    return rows
