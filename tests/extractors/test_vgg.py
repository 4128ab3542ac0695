"""VGG16 and LPIPS features: frozen, labelled, read from the layouts that exist, all mistakes at once."""

import pytest
import torch
from safetensors.torch import save_file

from smalti.config import build, config_of
from smalti.extractors import Extractor
from smalti.extractors._weights import LPIPS_HEADS_FILES, pretrained_heads, read_tensors
from smalti.extractors.lpips import LPIPS
from smalti.extractors.vgg16 import VGG16
from smalti.registry import UserError, names

TINY = (4, 4, 8, 8, 8)
BOTH = pytest.mark.parametrize("cls", [VGG16, LPIPS])


def image(size=32):
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0


@pytest.fixture
def layouts(golden, tmp_path):
    """The weights of one LPIPS as taming's one file, and as torchvision's trunk with the heads beside it."""
    tensors = golden("fqgan/lpips_small.safetensors")
    taming = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
    trunk = {
        ".".join(["features", *key.split(".")[2:]]): value for key, value in taming.items() if key.startswith("net.")
    }
    heads = {key: value for key, value in taming.items() if key.startswith("lin")}
    save_file(taming, tmp_path / "taming.safetensors")
    torch.save({**trunk, "classifier.0.weight": torch.zeros(2, 2)}, tmp_path / "trunk.pth")
    torch.save(heads, tmp_path / "heads.pth")
    return tmp_path, taming


WIDTHS = (8, 8, 16, 16, 16)


def test_taming_and_torchvision_layouts_give_the_same_network(layouts):
    folder, _ = layouts
    one = LPIPS(weights=str(folder / "taming.safetensors"), widths=WIDTHS)
    two = LPIPS(weights=[str(folder / "trunk.pth"), str(folder / "heads.pth")], widths=WIDTHS)
    for a, b in zip(one(image()), two(image()), strict=True):
        assert torch.equal(a, b)
    assert one.name == "lpips-vgg16 (taming.safetensors)"
    assert two.name == "lpips-vgg16 (trunk.pth, heads.pth)"


def test_vgg16_reads_the_trunk_of_either_layout(layouts):
    folder, _ = layouts
    one = VGG16(weights=str(folder / "taming.safetensors"), widths=WIDTHS)
    two = VGG16(weights=str(folder / "trunk.pth"), widths=WIDTHS)
    for a, b in zip(one(image()), two(image()), strict=True):
        assert torch.equal(a, b)


def test_vgg16_is_the_stack_that_torchvision_numbers(layouts):
    # An independent computation: convolutions at torchvision's indices, ReLU between, pooling at 4, 9, 16, 23.
    folder, taming = layouts
    x = (image() - taming["scaling_layer.shift"]) / taming["scaling_layer.scale"]
    weights = read_tensors([folder / "taming.safetensors"])
    outputs = []
    for index in range(30):
        if index in {4, 9, 16, 23}:
            outputs.append(x)
            x = torch.nn.functional.max_pool2d(x, 2, 2)
        elif f"features.{index}.weight" in weights:
            w, b = weights[f"features.{index}.weight"], weights[f"features.{index}.bias"]
            x = torch.nn.functional.relu(torch.nn.functional.conv2d(x, w, b, padding=1))
    features = VGG16(weights=str(folder / "trunk.pth"), widths=WIDTHS)(image())
    for a, b in zip(features, [*outputs, x], strict=True):
        torch.testing.assert_close(a, b)


def test_real_vgg16_has_the_known_number_of_weights():
    with torch.device("meta"):
        counts = {cls: sum(buffer.numel() for buffer in cls().buffers()) for cls in (VGG16, LPIPS)}
    scaling = 6
    assert counts[VGG16] == 14_714_688 + scaling
    assert counts[LPIPS] == 14_716_160 + scaling


def test_all_problems_of_a_file_are_listed_at_once(layouts):
    folder, taming = layouts
    broken = dict(taming)
    del broken["net.slice2.5.bias"]
    broken["lin1.model.1.weight"] = torch.zeros(1, 9, 1, 1)
    broken["lin7.model.1.weight"] = torch.zeros(1, 9, 1, 1)
    save_file(broken, folder / "broken.safetensors")
    with pytest.raises(UserError) as error:
        LPIPS(weights=str(folder / "broken.safetensors"), widths=WIDTHS)
    text = str(error.value)
    assert "missing features.5.bias (8,)" in text
    assert "unexpected lin7.model.1.weight (1, 9, 1, 1)" in text
    assert "lin1.model.1.weight has shape (1, 9, 1, 1), expected (1, 8, 1, 1)" in text


def test_negative_heads_and_another_scaling_are_errors(layouts):
    folder, taming = layouts
    negative = {**taming, "lin2.model.1.weight": taming["lin2.model.1.weight"] - 10.0}
    save_file(negative, folder / "negative.safetensors")
    with pytest.raises(UserError, match=r"lin2\.model\.1\.weight has the value .*needs linear\s+weights >= 0"):
        LPIPS(weights=str(folder / "negative.safetensors"), widths=WIDTHS)
    save_file({**taming, "scaling_layer.shift": torch.zeros(1, 3, 1, 1)}, folder / "scaling.safetensors")
    with pytest.raises(UserError, match=r"scaling_layer\.shift is \[0\.0, 0\.0, 0\.0\]: expected"):
        LPIPS(weights=str(folder / "scaling.safetensors"), widths=WIDTHS)


def test_a_damaged_file_and_one_with_code_are_clear_errors(tmp_path):
    (tmp_path / "damaged.pth").write_bytes(b"not a checkpoint")
    (tmp_path / "damaged.safetensors").write_bytes(b"not one either")
    torch.save({"callable": print}, tmp_path / "code.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    for path in tmp_path.iterdir():
        with pytest.raises(UserError, match=f"cannot read weights from .*{path.name}"):
            VGG16(weights=str(path))


@BOTH
def test_a_missing_path_is_an_error_even_on_the_meta_device(cls):
    with torch.device("meta"), pytest.raises(ValueError, match=r"weights='nowhere\.pth': no such file"):
        cls(weights="nowhere.pth")


@BOTH
def test_meta_device_needs_no_weights_and_touches_no_file(cls, monkeypatch):
    monkeypatch.setattr("smalti.extractors._weights.fetch", lambda *_: pytest.fail("fetched"))
    with torch.device("meta"):
        extractor = cls()
        shapes = [tuple(feature.shape) for feature in extractor(torch.empty(2, 3, 64, 64))]
    assert shapes == [(2, 64, 64, 64), (2, 128, 32, 32), (2, 256, 16, 16), (2, 512, 8, 8), (2, 512, 4, 4)]


@BOTH
def test_pretrained_without_the_file_says_what_to_fetch_and_where_to_put_it(cls, monkeypatch, tmp_path):
    monkeypatch.setenv("SMALTI_CACHE", str(tmp_path))
    monkeypatch.setenv("SMALTI_OFFLINE", "1")
    with pytest.raises(UserError) as error:
        cls()
    for piece in ("https://download.pytorch.org/models/vgg16-397923af.pth", str(tmp_path), "'weights'"):
        assert piece in str(error.value)


def test_pretrained_widths_are_the_standard_ones():
    with torch.device("meta"), pytest.raises(ValueError, match="with weights='pretrained'"):
        LPIPS(widths=TINY)


@BOTH
@pytest.mark.parametrize("widths", [(4, 4, 4), (4, 4, 8, 8, 0)])
def test_wrong_widths_are_an_error(cls, widths):
    with pytest.raises(ValueError, match="expected 5 numbers >= 1"):
        cls(weights="random", widths=widths)


def test_pretrained_heads_come_from_torchmetrics():
    path = pretrained_heads()
    assert "torchmetrics" in str(path)
    heads = read_tensors([path])
    assert {key: heads[key].shape[1] for key in sorted(heads)} == {
        f"lin{k}.model.1.weight": width for k, width in enumerate((64, 128, 256, 512, 512))
    }
    assert all((head >= 0.0).all() for head in heads.values())
    assert LPIPS_HEADS_FILES["vgg"].sha256.startswith("a78928a0")


@BOTH
def test_random_weights_are_always_the_same_and_leave_the_global_generator_alone(cls):
    torch.manual_seed(3)
    first = cls(weights="random", widths=TINY)
    drawn = torch.rand(())
    torch.manual_seed(3)
    assert torch.equal(torch.rand(()), drawn)
    for a, b in zip(first(image()), cls(weights="random", widths=TINY)(image()), strict=True):
        assert torch.equal(a, b)
        assert torch.isfinite(a).all()
        assert a.any()
    assert "random" in first.name


@BOTH
def test_is_frozen_in_evaluation_mode_and_in_no_state_dict(cls):
    extractor = cls(weights="random", widths=TINY)
    parent = torch.nn.Sequential(extractor).train()
    assert not any(module.training for module in extractor.modules())
    assert not parent.state_dict()
    assert not list(parent.parameters())
    assert not any(buffer.requires_grad for buffer in parent.buffers())
    parent.load_state_dict({})


@BOTH
def test_build_of_config_rebuilds_it(cls):
    extractor = cls(weights="random", widths=TINY)
    rebuilt = build(config_of(extractor), Extractor)
    assert config_of(rebuilt) == config_of(extractor)
    for a, b in zip(extractor(image()), rebuilt(image()), strict=True):
        assert torch.equal(a, b)


def test_registered():
    assert {"vgg16", "lpips"} <= set(names(Extractor))
