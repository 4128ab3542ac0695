"""Protocols: their hash is what they measure, sizes and files, crops that are the originals'."""

import hashlib
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from smalti.evaluation._crops import Framing, resize_center
from smalti.evaluation._metrics import metrics_of
from smalti.evaluation.protocol import MEASURING, Protocol, protocol_named, shipped
from smalti.metrics import Observation
from smalti.metrics._quantized import quantized
from smalti.outputs import BottleneckOutput
from smalti.registry import UserError

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (61, 100, 3), dtype=np.uint8))


def test_every_protocol_of_the_table_is_shipped() -> None:
    wanted = {"smalti", "smalti-uint8", "adm", "llamagen", "fqgan", "ldm", "taming", "torch-fidelity", "pytorch-fid"}
    assert wanted | {"clean", "whole", "cover", "open-magvit2", "dc-ae"} == set(shipped())


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_protocol_has_a_title_and_its_hash_stays(name: str) -> None:
    one = protocol_named(name)
    assert one.name == name
    assert one.title
    assert one.hash == protocol_named(name).hash
    assert set(one.unverified) <= one.measuring.keys()


def test_names_decide_nothing_and_each_other_field_everything() -> None:
    base = protocol_named("adm")
    same = Protocol(**{**vars(base), "name": "mine", "title": "other", "source": "", "unverified": ()})
    assert same.hash == base.hash
    assert base.differences(same) == {}
    assert protocol_named("fqgan").hash == protocol_named("llamagen").hash
    others = {"crop": "resize_center", "size": 128, "resize": "lanczos", "quantize": "round", "reference": "x.npz#ab"}
    others |= {"samples": 10, "splits": 5, "neighbours": 5}
    for field, value in others.items():
        changed = Protocol(**{**vars(base), field: value})
        assert changed.hash != base.hash, field
        assert list(base.differences(changed)) == [field]
    nested = {"psnr", "ssim", "features", "lpips"}
    assert {*others, *nested} == set(MEASURING)


def test_differences_name_nested_fields() -> None:
    found = protocol_named("adm").differences(protocol_named("llamagen"))
    assert found == {
        "ssim.window": ("gaussian11", "uniform7"),
        "ssim.border": ("reflect", "valid"),
        "ssim.data_range": (1.0, 2.0),
    }


def test_a_size_behind_the_name_and_a_file_of_ones_own(tmp_path: Path) -> None:
    assert protocol_named("adm@64").size == 64
    assert protocol_named("adm@64").hash == protocol_named("adm", 64).hash != protocol_named("adm").hash
    path = tmp_path / "mine.yaml"
    path.write_text("crop: center\nsize: 32\npsnr: {mean: pooled}\n")
    assert protocol_named(str(path)).measuring["psnr.mean"] == "pooled"
    assert protocol_named(str(path)).name == "mine"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("amd", "did you mean 'adm'"),
        ("adm@", "whole"),
        ("adm@0", "expected a number of pixels behind the @"),
        ("adm@big", "expected a number of pixels behind the @"),
        ("torch-fidelity@64", "takes images as they are"),
    ],
)
def test_what_is_no_protocol_is_said(name: str, says: str) -> None:
    if says == "whole":
        assert protocol_named(name).size == 256  # nothing behind the @ changes nothing
        return
    with pytest.raises(UserError, match=says):
        protocol_named(name)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("crop: none\nsize: 4", "size"),
        ("crop: center", "expected a size"),
        ("size: 8\nquantise: round", "did you mean 'quantize'"),
        ("size: 8\nunverified: [croop]", "did you mean 'crop'"),
        ("size: 8\nssim: {window: box}", "window"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(UserError, match=says):
        protocol_named(str(tmp_path / "p.yaml"))


def framed(name: str, size: int) -> torch.Tensor:
    return Framing(protocol_named(name, size))({"image": PICTURE}, random.Random(0))["image"]


def test_the_shorter_side_is_resized_and_the_middle_taken() -> None:
    by_hand = PICTURE.resize((int(32 * 100 / 61), 32), Image.Resampling.BICUBIC)
    left = round((by_hand.width - 32) / 2)
    expected = np.array(by_hand.crop((left, 0, left + 32, 32)))
    assert np.array_equal(framed("smalti", 32).permute(1, 2, 0).numpy(), expected)
    assert resize_center(PICTURE.rotate(90, expand=True), 32, "bicubic").shape == (3, 32, 32)


def test_adms_crop_halves_with_box_first() -> None:
    by_hand = PICTURE.resize((50, 30), Image.Resampling.BOX)
    scale = 20 / 30
    by_hand = by_hand.resize((round(50 * scale), 20), Image.Resampling.BICUBIC)
    left = (by_hand.width - 20) // 2
    expected = np.array(by_hand.crop((left, 0, left + 20, 20)))
    assert np.array_equal(framed("adm", 20).permute(1, 2, 0).numpy(), expected)


def test_plain_bilinear_looks_at_two_neighbours() -> None:
    row = Image.fromarray(np.array([[0, 100, 200, 40]] * 4, dtype=np.uint8))
    # output i lies at 2 i + 0.5 of the source
    assert resize_center(row, 2, "bilinear_plain")[0].tolist() == [[50, 120]] * 2
    assert torch.equal(
        resize_center(row, 4, "bilinear_plain")[0, 0], torch.tensor([0, 100, 200, 40], dtype=torch.uint8)
    )


@pytest.mark.parametrize(
    ("height", "width", "size", "digest"),
    [
        (30, 45, 20, "3b47fd7d736200fb"),
        (45, 31, 20, "9c873f9ef3d53a2b"),
        (9, 14, 16, "c3cbd649ae8c01a3"),
        (40, 40, 20, "a6a571358e931f91"),
        (20, 27, 20, "b7fdf99bafc2a1c1"),
    ],
)
def test_plain_bilinear_is_opencvs_to_the_last_bit(height: int, width: int, size: int, digest: str) -> None:
    """Recorded from albumentations 1.3.1 (SmallestMaxSize, CenterCrop) over OpenCV 5.0.0: its rounding, its corners."""
    i, j, c = np.ogrid[:height, :width, :3]
    picture = Image.fromarray(((31 * i * i + 17 * j * (c + 1) + 7 * c) % 256).astype(np.uint8))
    found = resize_center(picture, size, "bilinear_plain")
    assert found.shape == (3, size, size)
    assert hashlib.sha256(found.numpy().tobytes()).hexdigest()[:16] == digest
    grey = resize_center(picture.getchannel(0), size, "bilinear_plain")
    assert torch.equal(grey[0], found[0])


def test_eight_bits_are_rounded_or_cut_off() -> None:
    levels = torch.arange(256.0)
    exact = levels / 127.5 - 1
    for how in ("none", "round", "truncate128"):
        torch.testing.assert_close(quantized(exact, how), exact)
    between = (levels[:-1] + 0.6) / 127.5 - 1
    torch.testing.assert_close((quantized(between, "round") + 1) * 127.5, levels[1:])
    # 127.5 x + 128 is the value on the grid and one half more
    torch.testing.assert_close((quantized(between, "truncate128") + 1) * 127.5, levels[1:])
    below = (levels[:-1] + 0.4) / 127.5 - 1
    torch.testing.assert_close((quantized(below, "truncate128") + 1) * 127.5, levels[:-1])
    for how in ("round", "truncate"):
        assert quantized(torch.tensor([-3.0, 3.0]), how).tolist() == [-1.0, 1.0]
    for share in (0.1, 0.9):
        torch.testing.assert_close(quantized((levels + share) / 127.5 - 1, "truncate"), exact)


def test_psnr_and_ssim_may_be_of_8_bits_where_features_are_of_floats() -> None:
    """As skimage gives them of images that were cut off to 8 bits, each by itself."""
    target = torch.rand(2, 3, 20, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    made = (target + 0.1 * torch.randn(target.shape, generator=torch.Generator().manual_seed(1))).clamp(-1, 1)
    metrics = metrics_of(protocol_named("open-magvit2"), ["psnr", "ssim"], False)
    seen = Observation(target=target, reconstruction=made, bottleneck=BottleneckOutput(latent=made), codebook_sizes={})
    found = {name: metric.per_image(seen)[name].tolist() for name, metric in metrics.items()}
    eight = [
        ((of + 1) / 2 * 255.0).to(torch.uint8).permute(0, 2, 3, 1).numpy() / np.float64(255) for of in (target, made)
    ]
    for index, (one, other) in enumerate(zip(*eight, strict=True)):
        ssim = structural_similarity(other, one, data_range=1.0, channel_axis=-1)
        assert found["psnr"][index] == pytest.approx(peak_signal_noise_ratio(one, other, data_range=1.0), rel=1e-5)
        assert found["ssim"][index] == pytest.approx(ssim, rel=1e-6)
    plain = metrics_of(protocol_named("smalti"), ["psnr"], False)["psnr"].per_image(seen)["psnr"]
    assert (plain - torch.tensor(found["psnr"])).abs().max() > 1e-3
    assert protocol_named("open-magvit2").differences(protocol_named("smalti"))["psnr.quantize"] == ("truncate", None)
