"""Metrics of features as a pass uses them: names, references, warnings, ranks, and one look at each image."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from smalti.extractors.dinov2 import DINOv2
from smalti.extractors.inception_v3 import FILE, InceptionV3
from smalti.extractors.lpips import LPIPS
from smalti.metrics import Metric, Observation, _features
from smalti.metrics._feature_accumulators import FeatureMoments, FeatureSets, image_keys
from smalti.metrics._feature_metric import SetsMetric
from smalti.metrics._features import features_of
from smalti.metrics._moments import Moments, add_rows, moments_of, new_total
from smalti.metrics._moments_file import write_moments
from smalti.metrics.density_coverage import DensityCoverage
from smalti.metrics.evaluation import examine
from smalti.metrics.fd import FD
from smalti.metrics.fid import FID
from smalti.metrics.fid_infinity import FIDInfinity
from smalti.metrics.inception_score import InceptionScore
from smalti.metrics.kid import KID
from smalti.metrics.precision_recall import PrecisionRecall
from smalti.metrics.sfid import SFID
from smalti.outputs import BottleneckOutput
from smalti.registry import UserError
from tests.metrics.test_evaluation import Rounding, batches

ALL = {
    "fid": FID,
    "sfid": SFID,
    "fd": FD,
    "fid_infinity": FIDInfinity,
    "kid": KID,
    "inception_score": InceptionScore,
    "precision_recall": PrecisionRecall,
    "density_coverage": DensityCoverage,
}


class Averages(nn.Module):
    """A network of four features, the grey of the quarters, that counts how many images it saw."""

    def __init__(self, name: str = "averages") -> None:
        super().__init__()
        self.name = name
        self.seen = 0

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        self.seen += len(images)
        grey = images.mean(dim=1, keepdim=True)
        return (nn.functional.adaptive_avg_pool2d(grey, 2).flatten(1),)


def made_of(network: Any) -> dict[str, Metric]:
    """Every metric that needs no places, so small that few images are cut into several parts."""
    return {
        "fid": FID(network),
        "fid_infinity": FIDInfinity(network),
        "kid": KID(network, subsets=3, subset_size=2),
        "inception_score": InceptionScore(network, splits=2),
        "precision_recall": PrecisionRecall(network, k=1),
        "density_coverage": DensityCoverage(network, k=1),
    }


def observation(images: Tensor, made: Tensor) -> Observation:
    return Observation(target=images, reconstruction=made, bottleneck=BottleneckOutput(latent=made), codebook_sizes={})


def test_with_random_inception_nothing_is_called_by_the_published_names() -> None:
    network = InceptionV3(weights="random")
    names: list[str] = []
    for cls in ALL.values():
        metric: Any = cls(network)
        sets = torch.randn(6, 4), torch.randn(6, 4)
        values = metric.summarize(*sets) if isinstance(metric, SetsMetric) else metric.summarize(*map(moments, sets))
        names += values
    assert names == [
        "fd_random_inception",
        "sfd_random_inception",
        "fd_random_inception",
        "fd_infinity_random_inception",
        "kid_random_inception",
        "kid_random_inception_subsets",
        "kid_random_inception_subsets_deviation",
        "inception_score_random_inception",
        "inception_score_random_inception_deviation",
        "precision_recall_random_inception_precision",
        "precision_recall_random_inception_recall",
        "density_coverage_random_inception_density",
        "density_coverage_random_inception_coverage",
    ]


def test_whatever_key_a_recipe_gives_it_an_fid_of_random_weights_is_none() -> None:
    network = InceptionV3(weights="random", layers=["64", "logits_unbiased"])
    metrics = {"fid": FID(network), "score": InceptionScore(network)}
    values = examine(Rounding(), batches((2, 16, 16)), metrics).values
    assert list(values) == ["fd_random_inception_64", "score_random_inception", "score_random_inception_deviation"]
    assert all(np.isfinite(list(values.values())))


def moments(features: Tensor) -> Moments:
    total = new_total(features.shape[1])
    add_rows(total, features)
    return moments_of(total)


def test_each_metric_looks_at_its_layer() -> None:
    network = InceptionV3(weights="random")
    seen = observation(torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16))
    widths = {name: cls(network).features(seen, "made").shape[1] for name, cls in ALL.items()}
    assert widths.pop("sfid") == 2023
    assert widths.pop("inception_score") == 1008
    assert set(widths.values()) == {2048}
    shallow = InceptionV3(weights="random", layers=["64"])
    assert FID(shallow).name == "fd_random_inception_64"
    assert FID(shallow).features(seen, "made").shape[1] == 64
    with pytest.raises(ValueError, match=r"extractor.layers=\['64'\]: expected 'logits_unbiased'"):
        InceptionScore(shallow)


def test_names_come_from_the_network_and_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    network = InceptionV3(weights="random")
    for published, note, expected in (
        (True, "", ("fid", "sfid", "fid_infinity", "kid", "fd_inception_v3")),
        (
            False,
            " (mine.pth)",
            tuple(f"{stem}_inception_v3_mine" for stem in ("fd", "sfd", "fd_infinity", "kid", "fd")),
        ),
    ):
        monkeypatch.setattr(network, "_arguments", {})
        monkeypatch.setattr(network, "published", published)
        monkeypatch.setattr(network, "name", f"inception_v3{note}")
        assert tuple(cls(network).name for cls in (FID, SFID, FIDInfinity, KID, FD)) == expected
    with torch.device("meta"):
        dino = DINOv2(variant="small")
    assert FD(dino).name == "fd_dinov2_small"
    assert FD(LPIPS(weights="random", widths=(4, 4, 8, 8, 8))).name == "fd_random_lpips_vgg16"
    assert FD(Averages("My Net-2")).name == "fd_my_net_2"  # type: ignore[arg-type]


def test_without_the_file_one_message_names_it_its_hash_and_the_option(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SMALTI_CACHE", str(tmp_path))
    monkeypatch.setenv("SMALTI_OFFLINE", "1")
    for cls in (FID, KID, SFID):
        with pytest.raises(UserError) as raised:
            cls()
        for part in (FILE.name, FILE.url, FILE.sha256, "extractor: {type: inception_v3, weights: PATH}"):
            assert part in str(raised.value)


def test_metrics_without_an_extractor_share_one_network(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[InceptionV3] = []

    def pretrained() -> InceptionV3:
        made.append(InceptionV3(weights="random"))
        return made[-1]

    monkeypatch.setattr(_features, "InceptionV3", pretrained)
    monkeypatch.setattr(_features, "chosen_layer", lambda *_: None)
    monkeypatch.setattr(_features, "called", lambda own, *_: own)
    monkeypatch.setattr("smalti.metrics._feature_metric.chosen_layer", lambda *_: None)
    monkeypatch.setattr("smalti.metrics._feature_metric.called", lambda own, *_: own)
    first, second = FID(), KID()
    assert first.extractor is second.extractor
    assert len(made) == 1


def test_each_image_is_looked_at_once_by_all_metrics_of_a_network() -> None:
    network = Averages()
    found = examine(Rounding(), batches((4, 16, 16), (3, 16, 16)), made_of(network))
    assert network.seen == 2 * 7
    alone = {}
    for name, metric in made_of(Averages()).items():
        alone |= examine(Rounding(), batches((4, 16, 16), (3, 16, 16)), {name: metric}).values
    assert found.values == alone
    assert not _features._memory.found  # and nothing is kept of a pass that is over


def test_made_images_are_clamped_and_real_ones_must_be_in_range() -> None:
    images = torch.rand(2, 3, 8, 8) * 2 - 1
    network = Averages()
    wild = features_of(network, observation(images, images * 3), "made", None)
    torch.testing.assert_close(wild, network((images * 3).clamp(-1, 1))[0])
    with pytest.raises(ValueError, match="expected images in"):
        features_of(network, observation(images * 3, images), "real", None)


def test_a_reference_stands_for_the_real_images(tmp_path: Path) -> None:
    data = batches((6, 16, 16), (5, 16, 16))
    network = Averages()
    images = torch.cat([batch["image"] for batch in data]).float() / 127.5 - 1
    path = tmp_path / "reference.npz"
    write_moments(path, moments(network(images)[0]))
    expected = examine(Rounding(), data, {"fd": FD(network)}).values
    network.seen = 0
    metric = FD(network, reference=str(path))
    assert examine(Rounding(), data, {"fd": metric}).values == pytest.approx(expected, rel=1e-9)
    assert network.seen == 11  # the real images are not looked at
    write_moments(path, moments(torch.randn(9, 3)))
    with pytest.raises(UserError, match=r"moments of 3 features, but fd_averages has 4"):
        examine(Rounding(), data, {"fd": FD(network, reference=str(path))})
    with pytest.raises(UserError, match="has no 'mu_s' and 'sigma_s'"):
        SFID(LPIPS(weights="random", widths=(4, 4, 8, 8, 8)), reference=str(path))
    with pytest.raises(UserError, match="no such file"):
        FID(network, reference=str(tmp_path / "absent.npz"))


def test_warnings_stand_beside_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    few = examine(Rounding(), batches((4, 16, 16)), {"fid": FID(Averages()), "kid": KID(Averages())}).cautions
    assert few["fid"].startswith("4 images, 4 features: a covariance without full rank")
    assert few["kid"] == "4 images: fewer than 10,000, compare it with values of as many only"
    enough = examine(Rounding(), batches((5, 16, 16)), {"fid": FID(Averages())}).cautions
    assert enough == {"fid": "5 images: fewer than 10,000, compare it with values of as many only"}
    monkeypatch.setattr("smalti.metrics._feature_metric.MANY", 5)
    assert not examine(Rounding(), batches((5, 16, 16)), {"fid": FID(Averages()), "kid": KID(Averages())}).cautions


def test_features_of_two_widths_are_refused() -> None:
    for accumulator in (FeatureMoments(lambda *_: {}), FeatureSets(lambda *_: {})):
        keys = () if isinstance(accumulator, FeatureMoments) else (torch.arange(2),)
        accumulator.update(torch.ones(2, 3), torch.ones(2, 3), *keys)
        with pytest.raises(UserError, match="4 features, another had 3"):
            accumulator.update(torch.ones(2, 4), torch.ones(2, 4), *keys)


def test_sfid_wants_places() -> None:
    with pytest.raises(UserError, match=r"features \(2, 4\), no places"):
        examine(Rounding(), batches((2, 16, 16)), {"sfid": SFID(Averages())})  # type: ignore[arg-type]
    spatial = LPIPS(weights="random", widths=(4, 4, 8, 8, 8))
    seen = observation(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32))
    feature = spatial(seen.reconstruction)[-1]
    assert torch.equal(SFID(spatial).features(seen, "made"), feature[:, :7].permute(0, 2, 3, 1).flatten(1))


def test_images_have_keys_by_their_values_alone() -> None:
    images = torch.rand(50, 3, 8, 8)
    keys = image_keys(images)
    assert len(keys.unique()) == 50
    assert torch.equal(image_keys(images[[3]]), keys[[3]])
    assert not torch.equal(image_keys(images.mT.contiguous()), keys)
    assert torch.equal(image_keys(images.mT.contiguous().mT), keys)


@pytest.mark.parametrize("name", ["fid", "kid"])
def test_agrees_with_torchmetrics_on_the_same_features(golden: Any, name: str) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    features = golden("eval/evaluation.safetensors")
    made, real = (features[f"features.full.{side}"][:500] for side in ("made", "real"))

    class Given(nn.Module):
        num_features = 32

        def forward(self, features: Tensor) -> Tensor:
            return features

    with warnings.catch_warnings():  # it says how much memory it takes
        warnings.simplefilter("ignore")
        if name == "fid":
            other: Any = FrechetInceptionDistance(feature=Given(), normalize=False, input_img_size=(1, 1, 32))
            ours: Any = FeatureMoments(FD(Averages()).summarize)  # type: ignore[arg-type]
            ours.update(real, made)
        else:
            other = KernelInceptionDistance(feature=Given(), subsets=1, subset_size=500, normalize=False)
            ours = FeatureSets(KID(Averages()).summarize)  # type: ignore[arg-type]
            ours.update(real, made, torch.arange(500))
    for values, is_real in ((made, False), (real, True)):
        other.update(values, real=is_real)
    theirs = other.compute()
    value = theirs[0] if isinstance(theirs, tuple) else theirs
    assert next(iter(ours.compute().values())).item() == pytest.approx(value.item(), rel=1e-3)
