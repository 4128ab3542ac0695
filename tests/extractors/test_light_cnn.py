"""LightCNN: layout of the file, range, and that it is frozen."""

import pytest
import torch
from torch.nn import functional as F

from smalti.config import build, config_of
from smalti.extractors import Extractor
from smalti.extractors._frozen import named_weights
from smalti.extractors.light_cnn import FILE, LightCNN
from smalti.registry import UserError


def image(size=32):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0


def test_is_the_stack_that_the_file_numbers():
    network = LightCNN(weights="random")
    weights = {key: value for key, value in named_weights(network).items()}
    assert sorted({int(key.split(".")[1]) for key in weights}) == [0, 2, 3, 5, 6, 8, 9, 10, 11]
    x = (image() + 1.0) / 2.0  # the network was made for [0, 1]
    for index in range(13):
        if index in {1, 4, 7, 12}:
            x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        else:
            weight, bias = weights[f"features.{index}.filter.weight"], weights[f"features.{index}.filter.bias"]
            a, b = F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2).chunk(2, dim=1)
            x = torch.where(a > b, a, b)
    (feature,) = network(image())
    assert feature.shape == (2, 128, 2, 2)
    torch.testing.assert_close(feature, x)


def test_reads_openmmlabs_file_with_its_notes_and_a_classifier(tmp_path):
    random = LightCNN(weights="random")
    state = {**named_weights(random), "classifier.2.bias": torch.zeros(1)}
    torch.save({"meta": {"iter": 3}, "state_dict": state}, tmp_path / "face.pth")
    network = LightCNN(weights=str(tmp_path / "face.pth"))
    assert torch.equal(network(image())[0], random(image())[0])
    assert network.name == "light_cnn (face.pth)"
    torch.save({"features.0.filter.weight": torch.zeros(1)}, tmp_path / "broken.pth")
    with pytest.raises(UserError, match=r"missing features\.0\.filter\.bias"):
        LightCNN(weights=str(tmp_path / "broken.pth"))


def test_never_random_unless_asked(monkeypatch, tmp_path):
    # The original warns and goes on with random weights.
    monkeypatch.setenv("SMALTI_CACHE", str(tmp_path))
    monkeypatch.setenv("SMALTI_OFFLINE", "1")
    with pytest.raises(UserError, match=FILE.url):
        LightCNN()
    assert LightCNN(weights="random").name == "light_cnn (random weights)"


def test_is_frozen_built_on_meta_and_rebuilt_from_its_config():
    torch.manual_seed(3)
    expected = torch.rand(())
    torch.manual_seed(3)
    network = LightCNN(weights="random")
    assert torch.equal(torch.rand(()), expected)
    parent = torch.nn.Sequential(network).train()
    assert not any(module.training for module in network.modules())
    assert not parent.state_dict()
    assert not list(parent.parameters())
    assert torch.equal(build(config_of(network), Extractor)(image())[0], network(image())[0])
    assert network.double()(image().double())[0].dtype == torch.float64
    with torch.device("meta"):
        assert LightCNN()(torch.empty(1, 1, 128, 128))[0].shape == (1, 128, 8, 8)
    with pytest.raises(ValueError, match="expected"):
        network(torch.zeros(1, 4, 32, 32))
