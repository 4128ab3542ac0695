"""Metrics of the features of real and made images: what the distances, and precision and its kin, share."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from smalti.extractors import Extractor
from smalti.extractors._inception import Layer
from smalti.metrics import Metric, Observation
from smalti.metrics._features import (
    Side,
    called,
    chosen_layer,
    features_of,
    hashed,
    pooled,
    published_inception,
)
from smalti.metrics._frechet_rows import distances_left_out, total_of_rows
from smalti.metrics._jackknife import check_groups, ends
from smalti.metrics._moments import Moments, frechet_distance, moments_of
from smalti.metrics._moments_file import read_moments
from smalti.registry import UserError

if TYPE_CHECKING:
    from torchmetrics import Metric as Accumulator

MANY = 10_000  # images from which on the literature compares such numbers


class FeatureMetric(Metric):
    """Base of the metrics of features; ``name`` is what its numbers are called, after the network if it is another.

    Args:
        extractor: the network; None for Inception-v3 with its published weights.
        own: the name with those; None for the file's.
        foreign: what the names with other networks begin with; None: the same.
    """

    higher_is_better: bool | None = False
    fewest: ClassVar[int] = 2
    layers: ClassVar[tuple[Layer, ...]] = ("2048", "64", "192", "768")

    def __init__(self, extractor: Extractor | None, own: str, foreign: str | None = None) -> None:
        self.extractor = published_inception() if extractor is None else extractor
        self.layer = chosen_layer(self.extractor, self.layers)
        self.name = called(own, foreign or own, self.extractor, self.layer, self.layers[0])
        self.smallest_size = getattr(self.extractor, "smallest_size", 1)

    def features(self, observation: Observation, side: Side) -> Tensor:
        """Features with shape (B, d) of the real or the made images (B, C, H, W)."""
        return pooled(features_of(self.extractor, observation, side, self.layer))

    def of_real(self, observation: Observation) -> Tensor:
        """Features with shape (B, d) of the real images (B, C, H, W), those that are kept where there are any."""
        if observation.kept is None:
            return self.features(observation, "real")
        word = hashed(self.extractor, f"{type(self).features.__qualname__} {self.layer}")
        return observation.kept.features(word, observation.target, lambda: self.features(observation, "real"))

    def warnings(self, accumulator: Any) -> tuple[str, ...]:
        """What to know of the number of images, once the value was computed."""
        few = f"{accumulator.images} images: fewer than {MANY:,}, compare it with values of as many only"
        return (few,) if accumulator.images < MANY else ()


class FrechetMetric(FeatureMetric):
    """Base of the Frechet distances of normal distributions with the mean and covariance of features.

    Args:
        extractor: the network; None for Inception-v3 with its published weights.
        own: the name with those.
        foreign: what the names with other networks begin with.
        reference: a file of moments to measure against, instead of the real images.
        names: what mean and covariance are called in it.
        groups: of images, left out in turn for the interval; 0: no interval, and no features are kept.
    """

    def __init__(
        self,
        extractor: Extractor | None,
        own: str,
        foreign: str,
        reference: str | None,
        names: tuple[str, str],
        groups: int,
    ) -> None:
        super().__init__(extractor, own, foreign)
        self.groups = check_groups(groups)
        self.reference = None if reference is None else read_moments(reference, names)
        self.source = reference

    def create(self) -> "Accumulator":
        """An accumulator of moments, O(d^2) whatever the number of images; for an interval one of all features."""
        from smalti.metrics._feature_accumulators import FeatureMoments, FeatureSets

        return FeatureSets(self.summarize_rows) if self.groups else FeatureMoments(self.summarize)

    def update(self, accumulator: "Accumulator", observation: Observation) -> None:
        """Adds the images of a batch, each with shape (B, C, H, W); of real ones none if their moments are known.

        Raises:
            UserError: if the features are not those of the reference.
        """
        made = self.features(observation, "made")
        if self.reference is not None and len(self.reference.mean) != made.shape[1]:
            raise UserError(
                f"reference={self.source!r}: moments of {len(self.reference.mean)} features, but {self.name} has "
                f"{made.shape[1]}"
            )
        real = None if self.reference is not None else self.of_real(observation)
        if not self.groups:
            accumulator.update(real, made)
            return
        from smalti.metrics._feature_accumulators import image_keys

        accumulator.update(real, made, image_keys(observation.target))

    def summarize(self, real: Moments, made: Moments) -> Mapping[str, Tensor]:
        """The distance under its name."""
        return {self.name: frechet_distance(made, self.reference or real)}

    def summarize_rows(self, real: Tensor, made: Tensor) -> Mapping[str, Tensor]:
        """The distance and its interval, of features with shape (N, d)."""
        moments = [moments_of(total_of_rows(rows)) for rows in (real, made)]
        found = self.summarize(*moments)
        without = distances_left_out(self.reference or real, made, self.groups)
        return {**found, **ends(self.name, found[self.name], without, least=0.0)}

    def warnings(self, accumulator: Any) -> tuple[str, ...]:
        """What to know of the number of images, once the value was computed."""
        images, width = accumulator.images, accumulator.width
        lacks = f"{images} images, {width} features: a covariance without full rank, the value is far too large"
        return ((lacks,) if images < width + 1 else ()) + super().warnings(accumulator)


class SetsMetric(FeatureMetric):
    """Base of the metrics that need the features of all images at once."""

    sides: ClassVar[tuple[Side, ...]] = ("real", "made")

    @abstractmethod
    def summarize(self, real: Tensor, made: Tensor) -> Mapping[str, Tensor]:
        """Name -> number of features with shape (N, d), float32 on the CPU, in an order that images have."""

    def create(self) -> "Accumulator":
        """An accumulator that keeps all features, past 200 MiB in a temporary file."""
        from smalti.metrics._feature_accumulators import FeatureSets

        return FeatureSets(self.summarize)

    def update(self, accumulator: "Accumulator", observation: Observation) -> None:
        """Adds the images of a batch, each with shape (B, C, H, W)."""
        from smalti.metrics._feature_accumulators import image_keys

        real = self.of_real(observation) if "real" in self.sides else None
        accumulator.update(real, self.features(observation, "made"), image_keys(observation.target))
