"""ArcFace: layout of the file, the cut of the face, unit embeddings."""

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from smalti.config import build, config_of
from smalti.extractors import Extractor
from smalti.extractors._frozen import named_weights
from smalti.extractors.arcface import FILE, ArcFace, face_of
from smalti.registry import UserError

TINY = {"widths": (4, 4, 8, 8), "blocks": (1, 2, 1, 1)}


def portrait(height=64, width=64):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0


def test_real_one_has_the_names_and_the_number_of_weights_of_ir_se50():
    with torch.device("meta"):
        network = ArcFace()
        (embedding,) = network(torch.empty(2, 3, 256, 256))
    weights = named_weights(network)
    assert embedding.shape == (2, 512)
    trained = [value for key, value in weights.items() if "running" not in key]
    assert sum(value.numel() for value in trained) == 43_797_696
    shapes = {key: tuple(value.shape) for key, value in weights.items()}
    assert shapes["input_layer.0.weight"] == (64, 3, 3, 3)
    assert shapes["input_layer.2.weight"] == (64,)
    assert shapes["body.3.shortcut_layer.0.weight"] == (128, 64, 1, 1)
    assert shapes["body.3.res_layer.5.fc1.weight"] == (8, 128, 1, 1)
    assert shapes["body.23.res_layer.4.running_var"] == (512,)
    assert shapes["output_layer.3.weight"] == (512, 512 * 7 * 7)
    assert "body.0.shortcut_layer.0.weight" not in shapes
    assert "body.24.res_layer.0.weight" not in shapes


def test_equals_a_computation_by_hand_from_the_named_weights():
    network = ArcFace(weights="random", widths=(4, 4, 8, 8), blocks=(1, 1, 1, 1))
    w = named_weights(network)

    def norm(x, name):
        return F.batch_norm(
            x, w[f"{name}.running_mean"], w[f"{name}.running_var"], w[f"{name}.weight"], w[f"{name}.bias"]
        )

    x = F.conv2d(face_of(portrait()), w["input_layer.0.weight"], padding=1)
    x = F.prelu(norm(x, "input_layer.1"), w["input_layer.2.weight"])
    for k in range(4):
        p = f"body.{k}"
        shortcut = x[:, :, ::2, ::2]
        if f"{p}.shortcut_layer.0.weight" in w:
            shortcut = norm(F.conv2d(x, w[f"{p}.shortcut_layer.0.weight"], stride=2), f"{p}.shortcut_layer.1")
        y = F.conv2d(norm(x, f"{p}.res_layer.0"), w[f"{p}.res_layer.1.weight"], padding=1)
        y = F.prelu(y, w[f"{p}.res_layer.2.weight"])
        y = norm(F.conv2d(y, w[f"{p}.res_layer.3.weight"], stride=2, padding=1), f"{p}.res_layer.4")
        gate = F.relu(F.conv2d(y.mean((2, 3), keepdim=True), w[f"{p}.res_layer.5.fc1.weight"]))
        x = shortcut + y * torch.sigmoid(F.conv2d(gate, w[f"{p}.res_layer.5.fc2.weight"]))
    x = F.linear(norm(x, "output_layer.0").flatten(1), w["output_layer.3.weight"], w["output_layer.3.bias"])
    x = norm(x, "output_layer.4")
    torch.testing.assert_close(network(portrait())[0], x / x.norm(dim=1, keepdim=True), rtol=1e-4, atol=1e-5)


def test_the_face_is_cut_from_portraits_of_any_size():
    whole = torch.zeros(1, 1, 256, 256)
    whole[:, :, 35:223, 32:220] = 1.0
    assert face_of(whole).shape == (1, 1, 112, 112)
    assert (face_of(whole) == 1.0).all()
    # The original resizes by the height alone: of 256 x 300 pixels it cut columns 32-220, not the middle.
    wide = F.interpolate(whole, size=(256, 300))
    assert face_of(wide).mean() > 0.98
    assert wide[:, :, 35:223, 32:220].mean() < 0.98


def test_embeddings_have_length_one_and_grey_is_taken():
    network = ArcFace(weights="random", **TINY)
    (embedding,) = network(portrait())
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))
    grey = portrait()[:, :1]
    assert torch.equal(network(grey)[0], network(grey.expand(-1, 3, -1, -1))[0])


def test_reads_a_file_with_counters_and_downloads_nothing_unasked(tmp_path, monkeypatch):
    random = ArcFace(weights="random", **TINY)
    tensors = {**named_weights(random), "input_layer.1.num_batches_tracked": torch.tensor(7)}
    save_file(tensors, tmp_path / "own.safetensors")
    network = ArcFace(weights=str(tmp_path / "own.safetensors"), **TINY)
    assert torch.equal(network(portrait())[0], random(portrait())[0])
    assert (network.name, random.name) == ("arcface (own.safetensors)", "arcface (random weights)")
    monkeypatch.setenv("SMALTI_CACHE", str(tmp_path))
    monkeypatch.setenv("SMALTI_OFFLINE", "1")
    monkeypatch.setattr(ArcFace, "_build", lambda self, *_: setattr(self, "layer", torch.nn.Linear(1, 1)))
    with pytest.raises(UserError, match=FILE.url):
        ArcFace()


@pytest.mark.parametrize("options", [{"widths": (4, 4, 8)}, {"blocks": (1, 0, 1, 1)}])
def test_wrong_shapes_are_clear_errors(options):
    with pytest.raises(ValueError, match="expected 4 numbers >= 1"):
        ArcFace(weights="random", **options)
    with pytest.raises(ValueError, match="with weights='pretrained'"):
        ArcFace(**TINY)


def test_is_frozen_and_rebuilt_from_its_config():
    network = ArcFace(weights="random", **TINY)
    parent = torch.nn.Sequential(network).train()
    assert not any(module.training for module in network.modules())
    assert not parent.state_dict()
    assert not list(parent.parameters())
    rebuilt = build(config_of(network), Extractor)
    assert torch.equal(rebuilt(portrait())[0], network(portrait())[0])
    assert network.double()(portrait().double())[0].dtype == torch.float64
