"""Feature losses: laws of their own, and the traps of the originals that are gone."""

import inspect

import pytest
import torch

from smalti.extractors.arcface import ArcFace
from smalti.extractors.clip import CLIP as CLIPNetwork  # noqa: N811
from smalti.extractors.light_cnn import LightCNN as LightCNNNetwork
from smalti.extractors.vgg19 import BEFORE_RELU, VGG19
from smalti.losses import _features
from smalti.losses.clip import CLIP, clip
from smalti.losses.face_id import FaceId
from smalti.losses.light_cnn import LightCNN
from smalti.losses.perceptual import Perceptual
from smalti.losses.style import Style, gram
from smalti.losses.transferal_perceptual import TransferalPerceptual, transferal_perceptual
from smalti.outputs import LossValue

TINY = {"weights": "random", "widths": (4, 4, 8, 8, 8)}


def images(count=2, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2.0 * torch.rand(count, 3, size, size, generator=generator, dtype=torch.float64) - 1.0


def make(cls, **options):
    networks = {
        Perceptual: lambda: VGG19(**TINY),
        Style: lambda: VGG19(**TINY),
        LightCNN: lambda: LightCNNNetwork(weights="random"),
        FaceId: lambda: ArcFace(weights="random", widths=(4, 4, 8, 8), blocks=(1, 1, 1, 1)),
    }
    return cls(extractor=networks[cls](), **options).double()


FOUR = pytest.mark.parametrize("cls", [Perceptual, Style, LightCNN, FaceId])


@FOUR
def test_one_value_per_sample_and_the_target_without_autograd(cls):
    x, y = images(3).requires_grad_(), images(3, seed=1).requires_grad_()
    values = make(cls, reduction="none")(x, y)
    assert values.shape == (3, 1, 1, 1)
    torch.testing.assert_close(make(cls)(x[1:2], y[1:2]), values[1, 0, 0, 0])
    slopes = torch.autograd.grad(values.sum(), [x, y], allow_unused=True)
    assert slopes[0].abs().sum() > 0.0
    assert slopes[1] is None
    weight = torch.tensor([1.0, 0.0, 3.0])
    torch.testing.assert_close(make(cls)(x, y, weight), (values[0] + 3.0 * values[2]).sum() / 4.0)
    by_count = make(cls, weighting="mean_of_weighted")(x, y, weight)
    torch.testing.assert_close(by_count, (values[0] + 3.0 * values[2]).sum() / 3.0)


@FOUR
def test_is_symmetric_in_value_and_zero_for_equal_images(cls):
    loss, x, y = make(cls), images(), images(seed=1)
    torch.testing.assert_close(loss(x, y), loss(y, x))
    assert loss(x, y) > 0.0
    assert loss(x, x).abs() < 1e-12


@FOUR
def test_is_in_no_state_dict_and_grey_images_are_taken(cls):
    loss, x, y = make(cls), images()[:, :1], images(seed=1)[:, :1]
    assert not loss.state_dict()
    assert not list(loss.parameters())
    torch.testing.assert_close(loss(x, y), loss(x.expand(-1, 3, -1, -1), y.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("cls", [Perceptual, Style])
def test_layers_are_weighed_and_summed(cls):
    x, y = images(), images(seed=1)
    weights = (0.1, 0.0, 2.0, 0.5, 0.0)
    each = [make(cls, layer_weights=tuple(float(k == j) for j in range(5)))(x, y) for k in range(5)]
    expected = sum(weight * value for weight, value in zip(weights, each, strict=True))
    torch.testing.assert_close(make(cls, layer_weights=weights)(x, y), expected)
    assert make(cls, criterion="mse")(x, y) != make(cls)(x, y)


@pytest.mark.parametrize("cls", [Perceptual, Style])
def test_wrong_layer_weights_are_clear_errors(cls):
    for weights in ((), (0.0, 0.0), (1.0, -1.0)):
        with pytest.raises(ValueError, match=r"layer_weights=.*at least one > 0"):
            make(cls, layer_weights=weights)
    with pytest.raises(ValueError, match=r"layer_weights=\[1.0\]: the extractor has 5 features"):
        make(cls, layer_weights=(1.0,))(images(), images(seed=1))
    with pytest.raises(ValueError, match="criterion='fro': expected 'l1', 'mse'"):
        make(cls, criterion="fro")


def test_nothing_is_switched_on_silently():
    # The original adds a style term of weight 1 and takes [0, 1] images as [-1, 1] unless told otherwise.
    value = make(Perceptual)(images(), images(seed=1))
    assert not isinstance(value, (tuple, LossValue))
    assert {"norm_img", "style_weight", "perceptual_weight"}.isdisjoint(inspect.signature(Perceptual).parameters)
    assert _features.LAYER_WEIGHTS == (0.1, 0.1, 1.0, 1.0, 1.0)
    assert BEFORE_RELU == ("conv1_2", "conv2_2", "conv3_4", "conv4_4", "conv5_4")


def test_style_does_not_see_where_things_are():
    x = torch.rand(2, 4, 3, 5, dtype=torch.float64)
    order = torch.randperm(15)
    moved = x.flatten(2)[..., order].reshape(x.shape)
    torch.testing.assert_close(gram(moved), gram(x))
    torch.testing.assert_close(gram(2.0 * x), 4.0 * gram(x))
    torch.testing.assert_close(gram(x), torch.einsum("bchw,bdhw->bcd", x, x) / 60.0)
    assert gram(x[..., 0, 0]).shape == (2, 4, 4)


def test_half_precision_features_are_compared_in_float32():
    x, y = images().bfloat16(), images(seed=1).bfloat16()
    for cls in (Perceptual, Style):
        value = make(cls).bfloat16()(x, y)
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(make(cls)(x.double(), y.double()).item(), rel=0.05)


def test_transferal_attention_weighs_positions_and_resizes():
    maps = [torch.rand(2, 4, 4, 4, dtype=torch.float64), torch.rand(2, 2, 8, 8, dtype=torch.float64)]
    textures = [torch.zeros_like(map_) for map_ in maps]
    plain = transferal_perceptual(maps, textures)
    torch.testing.assert_close(plain, maps[0].square().mean() + maps[1].square().mean())
    for level, share in ((40.0, 1.0), (0.0, 0.25), (-40.0, 0.0)):
        attention = torch.full((2, 1, 4, 4), level, dtype=torch.float64)
        torch.testing.assert_close(transferal_perceptual(maps, textures, attention), share * plain)
    values = TransferalPerceptual(reduction="none", criterion="l1")(maps, textures)
    assert values.shape == (2, 1, 1, 1)
    with pytest.raises(ValueError, match="2 maps and 1 textures"):
        transferal_perceptual(maps, textures[:1])
    with pytest.raises(ValueError, match="must be equal"):
        transferal_perceptual(maps[:1], [textures[0][:1]])
    with pytest.raises(ValueError, match=r"attention has shape \(1, 1, 4, 4\): expected \(2, 1, H, W\)"):
        transferal_perceptual(maps, textures, torch.zeros(1, 1, 4, 4))


def test_clip_compares_pairs_or_all_and_falls_when_the_image_follows_its_gradient():
    network, texts = CLIPNetwork(weights="random").double(), ["a cat", "a dog"]
    x = images(2, 32).requires_grad_()
    matrix = clip(x, texts, extractor=network, pairs="all", reduction="none")
    matched = clip(x, texts, extractor=network, reduction="none")
    assert matrix.shape == (2, 2, 1, 1)
    torch.testing.assert_close(matched[:, 0, 0, 0], matrix[:, :, 0, 0].diagonal())
    torch.testing.assert_close(CLIP(extractor=network, pairs="all")(x, texts), matrix.mean())
    assert ((matrix >= 0.0) & (matrix <= 2.0)).all()
    value = matched.mean()
    (slope,) = torch.autograd.grad(value, [x])
    assert clip(x - 1e-3 * slope / slope.norm(), texts, extractor=network) < value
    weight = torch.tensor([0.0, 1.0])
    torch.testing.assert_close(CLIP(extractor=network)(x, texts, weight), matched[1].squeeze())
    with pytest.raises(ValueError, match="3 texts for 2 images: expected as many, or pairs='all'"):
        clip(x, ["a", "b", "c"], extractor=network)
    with pytest.raises(ValueError, match="pairs='some': expected"):
        CLIP(extractor=network, pairs="some")
