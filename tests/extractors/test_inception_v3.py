"""Inception-v3: the published layout, features as an independent implementation recorded them, its weights."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from smalti.config import build, config_of
from smalti.extractors import Extractor
from smalti.extractors._images import resize_like_tensorflow1
from smalti.extractors._inception import Inception
from smalti.extractors.inception_v3 import FILE, InceptionV3, prepare
from smalti.metrics import Observation
from smalti.metrics.sfid import SFID
from smalti.outputs import BottleneckOutput
from smalti.registry import UserError
from tests.conftest import GOLDEN

LAYERS = ("64", "192", "768", "2048", "logits_unbiased")


def by_the_rule(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """The weights of the recorded numbers, which a rule makes of the rank of each name."""
    made = {}
    for rank, (key, shape) in enumerate(sorted(shapes.items())):
        r = torch.randn(shape, generator=torch.Generator().manual_seed(rank))
        if key.endswith("num_batches_tracked"):
            made[key] = torch.tensor(0)
        elif key.endswith("running_var"):
            made[key] = 1 + 0.1 * r.abs()
        elif key.endswith("bn.weight"):
            made[key] = 1 + 0.1 * r
        elif key.endswith(("running_mean", "bias")):
            made[key] = 0.1 * r
        else:
            made[key] = r * (2 / r[0].numel()) ** 0.5
    return made


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shapes = json.loads((GOLDEN / "eval" / "evaluation.json").read_text())["inception_keys"]
    path = tmp_path_factory.mktemp("inception") / "inception.pth"
    torch.save(by_the_rule(shapes), path)
    return path


@pytest.fixture(scope="module")
def network(weights: Path) -> InceptionV3:
    return InceptionV3(weights=str(weights), layers=LAYERS)


def signed(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    return pixels.to(dtype) / 127.5 - 1


def test_has_the_names_and_shapes_of_the_published_file(golden: Any) -> None:
    with torch.device("meta"):
        state = Inception().state_dict()
    assert len(state) == 566
    assert {key: list(value.shape) for key, value in state.items()} == golden("eval/evaluation.json")["inception_keys"]


@pytest.mark.parametrize("case", "abc")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-6)])
def test_features_are_the_recorded_ones(
    network: InceptionV3, golden: Any, case: str, dtype: torch.dtype, tolerance: float
) -> None:
    numbers = golden("eval/evaluation.safetensors")
    found = network.to(dtype)(signed(numbers[f"inception.{case}.images"], dtype))
    network.float()
    for layer, feature in zip(LAYERS, found, strict=True):
        expected = numbers[f"inception.{case}.{layer}"].to(dtype)
        assert feature.dtype == dtype
        assert feature.shape == expected.shape
        error = (feature - expected).abs().max() / expected.abs().max()
        assert error <= tolerance, layer


@pytest.mark.parametrize("case", "ab")
def test_the_resize_is_tensorflows(golden: Any, case: str) -> None:
    numbers = golden("eval/evaluation.safetensors")
    resized = resize_like_tensorflow1(numbers[f"inception.{case}.images"].float(), 299, 299)
    crop = resized[:, :, 100:110, 200:210]
    torch.testing.assert_close(crop, numbers[f"resize_tf.{case}.crop"], rtol=0, atol=1e-4)
    if case == "b":
        torch.testing.assert_close(resized.mean(dim=(2, 3)), numbers["resize_tf.b.mean"], rtol=0, atol=1e-4)
    assert not torch.allclose(
        resized, F.interpolate(numbers[f"inception.{case}.images"].float(), (299, 299), mode="bilinear")
    )


def test_each_resize_has_its_own_normalisation() -> None:
    pixels = torch.arange(256, dtype=torch.float64).reshape(1, 1, 16, 16)
    x = signed(pixels, torch.float64)
    torch.testing.assert_close(prepare(x, "none"), (pixels.expand(1, 3, -1, -1) - 128) / 128)
    full = torch.arange(299.0**2).reshape(1, 1, 299, 299) % 256
    assert torch.equal(prepare(signed(full, torch.float32), "tf"), prepare(signed(full, torch.float32), "none"))
    assert torch.equal(prepare(x, "half_pixel"), F.interpolate(x.expand(1, 3, -1, -1), (299, 299), mode="bilinear"))
    assert prepare(x.to(torch.bfloat16), "tf").dtype == torch.float32


def test_layers_come_in_their_order_and_alone(network: InceptionV3, weights: Path, golden: Any) -> None:
    images = signed(golden("eval/evaluation.safetensors")["inception.b.images"], torch.float32)
    all_layers = dict(zip(LAYERS, network(images), strict=True))
    two = InceptionV3(weights=str(weights), layers=["768", "64"])(images)
    assert torch.equal(two[0], all_layers["768"])
    assert torch.equal(two[1], all_layers["64"])
    (default,) = InceptionV3(weights=str(weights))(images)
    assert torch.equal(default, all_layers["2048"])


def test_spatial_are_the_first_channels_of_the_seventh_block_channels_last(network: InceptionV3) -> None:
    images = torch.rand(1, 3, 80, 80) * 2 - 1
    seen: list[Tensor] = []
    handle = network.network.get_submodule("Mixed_6d").register_forward_hook(lambda _, __, out: seen.append(out))
    spatial = network.features(images, ["spatial"])["spatial"]
    handle.remove()
    assert spatial.shape == (1, 17 * 17 * 7)
    assert torch.equal(spatial.reshape(1, 17, 17, 7), seen[0][:, :7].permute(0, 2, 3, 1))


class ByHand:
    """The network up to its seventh mixed block, written out from the paper's table."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.weights = weights

    def unit(self, x: Tensor, name: str, stride: int = 1, padding: tuple[int, int] = (0, 0)) -> Tensor:
        w = self.weights
        x = F.conv2d(x, w[f"{name}.conv.weight"], stride=stride, padding=padding)
        mean, var, gain, bias = (w[f"{name}.bn.{of}"] for of in ("running_mean", "running_var", "weight", "bias"))
        scale = gain / (var + 0.001).sqrt()
        return ((x - mean[:, None, None]) * scale[:, None, None] + bias[:, None, None]).clamp_min(0.0)

    def chain(self, x: Tensor, block: str, *steps: tuple[str, tuple[int, int]]) -> Tensor:
        for name, padding in steps:
            x = self.unit(x, f"{block}.{name}", padding=padding)
        return x

    def average(self, x: Tensor) -> Tensor:
        ones = F.avg_pool2d(torch.ones_like(x[:1, :1]), 3, 1, padding=1)  # the padding does not count
        return F.avg_pool2d(x, 3, 1, padding=1) / ones

    def fine(self, x: Tensor, name: str) -> Tensor:
        five = self.chain(x, name, ("branch5x5_1", (0, 0)), ("branch5x5_2", (2, 2)))
        three = ("branch3x3dbl_1", (0, 0)), ("branch3x3dbl_2", (1, 1)), ("branch3x3dbl_3", (1, 1))
        pooled = self.unit(self.average(x), f"{name}.branch_pool")
        return torch.cat([self.unit(x, f"{name}.branch1x1"), five, self.chain(x, name, *three), pooled], 1)

    def lines(self, x: Tensor, name: str) -> Tensor:
        row, column = (0, 3), (3, 0)
        seven = ("branch7x7_1", (0, 0)), ("branch7x7_2", row), ("branch7x7_3", column)
        double = [(f"branch7x7dbl_{n + 1}", of) for n, of in enumerate([(0, 0), column, row, column, row])]
        parts = [self.unit(x, f"{name}.branch1x1"), self.chain(x, name, *seven), self.chain(x, name, *double)]
        return torch.cat([*parts, self.unit(self.average(x), f"{name}.branch_pool")], 1)

    def spatial(self, pixels: Tensor) -> Tensor:
        """(B, h w 7) of pixels (B, 3, H, W) from 0 to 255."""
        x = self.unit((pixels - 128) / 128, "Conv2d_1a_3x3", stride=2)
        x = self.unit(self.unit(x, "Conv2d_2a_3x3"), "Conv2d_2b_3x3", padding=(1, 1))
        x = self.unit(self.unit(F.max_pool2d(x, 3, 2), "Conv2d_3b_1x1"), "Conv2d_4a_3x3")
        x = F.max_pool2d(x, 3, 2)
        for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
            x = self.fine(x, name)
        deep = self.chain(x, "Mixed_6a", ("branch3x3dbl_1", (0, 0)), ("branch3x3dbl_2", (1, 1)))
        halved = [self.unit(x, "Mixed_6a.branch3x3", stride=2), self.unit(deep, "Mixed_6a.branch3x3dbl_3", stride=2)]
        x = torch.cat([*halved, F.max_pool2d(x, 3, 2)], 1)
        x = self.lines(self.lines(x, "Mixed_6b"), "Mixed_6c")
        found = self.unit(x, "Mixed_6d.branch1x1")[:, :7]
        return found.permute(0, 2, 3, 1).reshape(len(found), -1)


def test_sfid_is_the_one_written_out_by_hand(weights: Path) -> None:
    """Features, and a distance of few images by singular values: tr (S S')^(1/2) = |A B^T|_* / (n - 1)."""
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, 3, 92, 107), generator=random)
    made = (pixels + torch.randint(-60, 60, pixels.shape, generator=random)).clamp(0, 255)
    by_hand = ByHand(torch.load(weights, weights_only=True))
    expected = [by_hand.spatial(of.float()).double() for of in (pixels, made)]
    means = [features.mean(dim=0) for features in expected]
    off = [(features - mean).numpy() for features, mean in zip(expected, means, strict=True)]
    common = np.linalg.svd(off[0] @ off[1].T, compute_uv=False).sum() / 2
    apart = (means[0] - means[1]).square().sum().item()
    distance = apart + sum((of**2).sum() / 2 for of in off) - 2 * common
    metric = SFID(InceptionV3(weights=str(weights), layers=["spatial"], resize="none"))
    accumulator = metric.create()
    real, reconstruction = (signed(of, torch.float32) for of in (pixels, made))
    bottleneck = BottleneckOutput(latent=real)
    seen = Observation(target=real, reconstruction=reconstruction, bottleneck=bottleneck, codebook_sizes={})
    for side, features in zip(("real", "made"), expected, strict=True):
        torch.testing.assert_close(metric.features(seen, side).double(), features, rtol=1e-4, atol=1e-4)
    metric.update(accumulator, seen)
    assert accumulator.compute()["sfd_inception_v3_inception"].item() == pytest.approx(distance, rel=1e-4)


def test_narrow_types_around_it_do_not_reach_it(network: InceptionV3) -> None:
    images = torch.rand(1, 3, 80, 80) * 2 - 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = network(images)
    for feature, expected in zip(inside, network(images), strict=True):
        assert torch.equal(feature, expected)


@pytest.mark.parametrize("name", [FILE.name, "weights-inception-2015-12-05-6726825d.pth", "mine-00000000.safetensors"])
def test_a_wrong_file_under_the_right_name_is_refused(tmp_path: Path, weights: Path, name: str) -> None:
    path = tmp_path / name
    path.symlink_to(weights)
    with pytest.raises(UserError, match=r"damaged or another file: its name tells SHA-256 \w{8}"):
        InceptionV3(weights=str(path))


def test_the_published_file_is_known_by_its_hash_under_any_name(
    weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert not InceptionV3(weights=str(weights)).published
    assert InceptionV3(weights=str(weights)).name == "inception_v3 (inception.pth)"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    pinned = type(FILE)(name=FILE.name, url=FILE.url, sha256=digest[:8], megabytes=91)
    monkeypatch.setattr("smalti.extractors.inception_v3.FILE", pinned)
    known = InceptionV3(weights=str(weights))
    assert known.published
    assert known.name == "inception_v3"
    monkeypatch.setenv("SMALTI_CACHE", str(tmp_path))
    monkeypatch.setenv("SMALTI_OFFLINE", "1")
    (tmp_path / FILE.name).symlink_to(weights)
    assert InceptionV3().published


def test_without_the_file_one_message_says_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SMALTI_CACHE", str(tmp_path))
    monkeypatch.setenv("SMALTI_OFFLINE", "1")
    with pytest.raises(UserError) as raised:
        InceptionV3()
    for part in (FILE.url, FILE.name, str(tmp_path / FILE.name), "SHA-256 6726825d...", "option 'weights'"):
        assert part in str(raised.value)
    (tmp_path / FILE.name).write_bytes(b"something else")
    with pytest.raises(UserError, match="what lies there has SHA-256"):
        InceptionV3()


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    torch.save({"fc.bias": torch.zeros(1000)}, tmp_path / "broken.pth")
    with pytest.raises(UserError, match=r"missing Conv2d_1a_3x3\.conv\.weight"):
        InceptionV3(weights=str(tmp_path / "broken.pth"))


def test_is_frozen_built_on_meta_and_rebuilt_from_its_config() -> None:
    torch.manual_seed(3)
    expected = torch.rand(())
    torch.manual_seed(3)
    random = InceptionV3(weights="random", layers=["192"], resize="none")
    assert torch.equal(torch.rand(()), expected)
    assert random.name == "inception_v3 (random weights)"
    parent = torch.nn.Sequential(random).train()
    assert not any(module.training for module in random.modules())
    assert not parent.state_dict()
    assert not list(parent.parameters())
    images = torch.rand(1, 3, 75, 75) * 2 - 1
    assert torch.equal(build(config_of(random), Extractor)(images)[0], random(images)[0])
    with torch.device("meta"):
        assert InceptionV3()(torch.empty(2, 1, 32, 32))[0].shape == (2, 2048)


def test_says_which_images_and_options_it_takes() -> None:
    with torch.device("meta"):
        unresized = InceptionV3(resize="none")
        assert "at least 75 x 75" in str(unresized.objection((3, 74, 80)))
        assert unresized.objection((3, 75, 75)) is None
        assert unresized(torch.empty(1, 3, 75, 75))[0].shape == (1, 2048)
        with pytest.raises(ValueError, match="at least 75 x 75"):
            unresized(torch.empty(1, 3, 74, 80))
        assert InceptionV3().objection((3, 1, 1)) is None
        for layers in ([], ["64", "64"], "64"):
            with pytest.raises(ValueError, match="one or more different names"):
                InceptionV3(layers=layers)
        with pytest.raises(ValueError, match="no layer '1024'; known: 192, 2048"):
            InceptionV3(layers=["1024"])  # type: ignore[list-item]
        with pytest.raises(ValueError, match="resize='tv': expected 'tf'"):
            InceptionV3(resize="tv")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(40, 64), (299, 299), (400, 333)])
def test_pillows_bicubic_is_pillows(size):
    pixels = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
    found = prepare(pixels.float() / 127.5 - 1.0, "pillow_bicubic") * 128.0 + 128.0
    for channel, values in zip(found[0], pixels[0].numpy(), strict=True):
        resized = Image.fromarray(values.astype(np.float32)).resize((299, 299), Image.Resampling.BICUBIC)
        expected = torch.from_numpy(np.clip(np.array(resized), 0.0, 255.0))
        torch.testing.assert_close(channel, expected, rtol=0, atol=1e-4)
