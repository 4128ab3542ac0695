"""VGG19: the layers that users name, of the stack that torchvision numbers; one definition with VGG16."""

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from smalti.config import build, config_of
from smalti.extractors import Extractor
from smalti.extractors._weights import VGG19_FILE, random_tensors
from smalti.extractors.vgg16 import VGG16
from smalti.extractors.vgg19 import VGG19
from smalti.registry import UserError

TINY = (4, 4, 8, 8, 8)
# What ``features`` of torchvision's VGG19 holds at which position.
POSITIONS = {"conv1_2": 2, "conv2_2": 7, "conv3_4": 16, "conv4_4": 25, "conv5_4": 34}


def image(size=32, dtype=torch.float32):
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=dtype) * 2.0 - 1.0


def test_default_layers_are_torchvisions_2_7_16_25_34_before_the_relu():
    network = VGG19(weights="random", widths=TINY)
    weights = random_tensors(network.trunk.named_weights())
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x, found = ((image() + 1.0) / 2.0 - mean) / deviation, {}
    for index in range(35):
        if f"features.{index}.weight" in weights:
            x = F.conv2d(x, weights[f"features.{index}.weight"], weights[f"features.{index}.bias"], padding=1)
        else:
            x = F.max_pool2d(x, 2) if index in {4, 9, 18, 27} else F.relu(x)
        found[index] = x
    assert tuple(network.trunk.layers) == tuple(POSITIONS)
    for feature, position in zip(network(image()), POSITIONS.values(), strict=True):
        torch.testing.assert_close(feature, found[position], rtol=1e-4, atol=1e-5)
        assert (feature < 0.0).any()


@pytest.mark.parametrize("cls", [VGG16, VGG19])
def test_layers_are_named_and_ordered_by_the_user(cls):
    names = ("pool2", "relu1_2", "conv1_2", "conv3_1")
    pool, relu, convolution, deep = cls(weights="random", widths=TINY, layers=names)(image())
    assert torch.equal(relu, F.relu(convolution))
    assert [tuple(feature.shape[1:]) for feature in (pool, deep)] == [(4, 8, 8), (8, 8, 8)]


@pytest.mark.parametrize("cls", [VGG16, VGG19])
def test_nothing_deeper_is_computed_and_smaller_images_are_enough(cls):
    network = cls(weights="random", widths=TINY, layers=("conv2_1",))
    assert network(image(2))[0].shape == (1, 4, 1, 1)
    with pytest.raises(ValueError, match="at least 2 x 2"):
        network(image(1))
    with pytest.raises(ValueError, match="at least 16 x 16"):
        cls(weights="random", widths=TINY)(image(15))


@pytest.mark.parametrize("cls", [VGG16, VGG19])
@pytest.mark.parametrize(
    ("layers", "message"),
    [(("relu3_9",), "no layer 'relu3_9'; did you mean"), ((), "expected one or more"), (("pool1",) * 2, "different")],
)
def test_wrong_layers_are_clear_errors(cls, layers, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        cls(layers=layers)


def test_real_one_has_the_known_number_of_weights_and_reads_nothing_on_meta(monkeypatch):
    monkeypatch.setattr("smalti.extractors._weights.fetch", lambda *_: pytest.fail("fetched"))
    with torch.device("meta"):
        network = VGG19()
        shapes = [tuple(feature.shape) for feature in network(torch.empty(2, 3, 64, 64))]
    assert sum(buffer.numel() for buffer in network.buffers()) == 20_024_384 + 6
    assert shapes == [(2, 64, 64, 64), (2, 128, 32, 32), (2, 256, 16, 16), (2, 512, 8, 8), (2, 512, 4, 4)]


def test_reads_torchvisions_file_and_says_where_its_numbers_come_from(tmp_path):
    random = VGG19(weights="random", widths=TINY)
    tensors = {**random.trunk.named_weights(), "classifier.0.weight": torch.zeros(2, 2)}
    save_file(tensors, tmp_path / "own.safetensors")
    network = VGG19(weights=str(tmp_path / "own.safetensors"), widths=TINY)
    assert all(torch.equal(a, b) for a, b in zip(network(image()), random(image()), strict=True))
    assert (network.name, random.name) == ("vgg19 (own.safetensors)", "vgg19 (random weights)")


def test_pretrained_without_the_file_says_what_to_fetch(monkeypatch, tmp_path):
    monkeypatch.setenv("SMALTI_CACHE", str(tmp_path))
    monkeypatch.setenv("SMALTI_OFFLINE", "1")
    with pytest.raises(UserError, match=VGG19_FILE.url):
        VGG19()
    assert VGG19_FILE.name.endswith(f"-{VGG19_FILE.sha256}.pth")
    with pytest.raises(ValueError, match="with weights='pretrained'"):
        VGG19(widths=TINY)


def test_is_frozen_takes_grey_and_is_rebuilt_from_its_config():
    network = VGG19(weights="random", widths=TINY, layers=("pool1",))
    parent = torch.nn.Sequential(network).train()
    assert not network.training
    assert not parent.state_dict()
    assert not list(parent.parameters())
    grey = image()[:, :1]
    assert torch.equal(network(grey)[0], network(grey.expand(-1, 3, -1, -1))[0])
    assert torch.equal(build(config_of(network), Extractor)(image())[0], network(image())[0])
