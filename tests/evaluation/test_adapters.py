"""Adapters: each gives what the tokenizer's own encode and decode give, and the bits that it takes."""

import io
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import smalti
from smalti.data.image_folder import ImageFolder
from smalti.evaluation._pixels import under
from smalti.evaluation.adapters import Ours
from smalti.evaluation.opening import open_adapter
from smalti.losses.psnr import psnr
from smalti.metrics.codebook_report import CodebookReport
from smalti.nn.padding import pad_to_multiple
from smalti.outputs import BottleneckOutput
from smalti.registry import UserError
from tests.evaluation.tokenizers import photos

diffusers = pytest.importorskip("diffusers")

IMAGES = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
NAMES = ["a", "b"]
SMALL: dict[str, Any] = {"block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1}


def kl() -> Any:
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return diffusers.AutoencoderKL(latent_channels=4, **blocks, **SMALL)


def vq() -> Any:
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return diffusers.VQModel(latent_channels=3, num_vq_embeddings=16, vq_embed_dim=3, **blocks, **SMALL)


def tiny() -> Any:
    sizes = {"encoder_block_out_channels": (8, 8, 8), "decoder_block_out_channels": (8, 8, 8)}
    blocks = {"num_encoder_blocks": (1, 1, 1), "num_decoder_blocks": (1, 1, 1)}
    return diffusers.AutoencoderTiny(latent_channels=4, **sizes, **blocks)


def dc() -> Any:
    sizes = {"encoder_block_out_channels": (8, 16), "decoder_block_out_channels": (8, 16)}
    blocks = {"encoder_layers_per_block": (1, 1), "decoder_layers_per_block": (1, 1)}
    types = {"encoder_block_types": "ResBlock", "decoder_block_types": "ResBlock", "attention_head_dim": 8}
    return diffusers.AutoencoderDC(latent_channels=4, **sizes, **blocks, **types)


def by_hand(model: Any) -> torch.Tensor:
    found = model.encode(IMAGES.to(next(model.parameters()).dtype))
    latent = found.latent_dist.mode() if hasattr(found, "latent_dist") else getattr(found, "latents", None)
    latent = found.latent if latent is None else latent
    made: torch.Tensor = model.decode(latent).sample
    return made


@pytest.mark.parametrize("make", [kl, vq, tiny, dc])
@torch.no_grad()
def test_autoencoders_of_diffusers_give_what_a_loop_by_hand_gives(make: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = make().eval()
    model.save_pretrained(tmp_path / "model")
    adapter = open_adapter(str(tmp_path / "model")).double()
    found = adapter.see(IMAGES.double(), NAMES)
    torch.testing.assert_close(found.reconstruction, by_hand(model.double()), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.target, IMAGES.double())
    assert found.bits is not None
    if make is vq:
        positions = 32 * 48 / adapter.factor**2
        assert found.bits.tolist() == [positions * math.log2(16)] * 2
        assert dict(adapter.codebook_sizes)
    else:
        assert found.bits.tolist() == [found.bottleneck.latent[0].numel() * 64.0] * 2
    assert len(adapter.fingerprint()["weights_sha256"]) == 64


@torch.no_grad()
def test_a_vqmodel_in_its_own_code_has_its_own_tokens() -> None:
    from smalti.evaluation._diffusers import Diffusers

    torch.manual_seed(0)
    model = vq().eval()
    adapter = Diffusers(model, "vq", "here")
    assert adapter.factor == 2
    found = adapter.see(IMAGES, NAMES)
    torch.testing.assert_close(found.reconstruction, by_hand(model))
    latent = model.encode(IMAGES).latents
    _, _, (_, _, indices) = model.quantize(latent)
    assert found.bottleneck.indices is not None
    assert torch.equal(found.bottleneck.indices.flatten(), indices)


@torch.no_grad()
def test_sides_that_the_factor_does_not_divide_are_padded_and_cut_back(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path / "model")
    adapter = open_adapter(str(tmp_path / "model"))
    assert adapter.see(IMAGES[..., :30, :47], NAMES).reconstruction.shape == (2, 3, 30, 47)


@torch.no_grad()
def test_ours_gives_what_it_gives(tmp_path: Path) -> None:
    model = smalti.build("tiny-vqvae", ["model.encoder.channels=32", "model.decoder.channels=32"]).eval()
    model.save_pretrained(tmp_path / "model")
    adapter = open_adapter(str(tmp_path / "model"))
    found = adapter.see(IMAGES, NAMES)
    code = model.encode(IMAGES)
    assert torch.equal(found.reconstruction, model.decode_indices(code.indices))
    assert found.bits is not None
    assert found.bits.tolist() == [code.indices[0].numel() * 9.0] * 2
    assert adapter.name == tmp_path.name


@pytest.mark.parametrize(("words", "format"), [("jpeg:q=30", "JPEG"), ("webp:q=30", "WEBP"), ("png", "PNG")])
@pytest.mark.parametrize("channels", [1, 3])
def test_codecs_write_and_read_files(words: str, format: str, channels: int) -> None:
    found = open_adapter(words).see(IMAGES[:, :channels], NAMES)
    pixels = ((IMAGES[0, :channels] + 1) * 127.5).round().to(torch.uint8)
    array = pixels[0].numpy() if channels == 1 else pixels.permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(array).save(file, format, **({"quality": 30} if format != "PNG" else {}))
    expected = np.array(Image.open(file).convert("L" if channels == 1 else "RGB"))
    made = ((found.reconstruction[0] + 1) * 127.5).round().to(torch.uint8)
    assert np.array_equal(made[0].numpy() if channels == 1 else made.permute(1, 2, 0).numpy(), expected)
    assert found.bits is not None
    assert found.bits[0] == 8 * len(file.getvalue())
    if format == "PNG":
        assert torch.equal(made, pixels)


def test_reconstructions_are_found_by_name_whatever_their_suffix(tmp_path: Path) -> None:
    originals = ImageFolder(str(photos(tmp_path / "in", 3)))
    (tmp_path / "made").mkdir()
    for number in (2, 0, 1):
        Image.new("RGB", (24, 20), (number, 0, 0)).save(tmp_path / "made" / f"{number}.bmp")
    adapter = open_adapter(f"images:{tmp_path / 'made'}", originals=originals.names)
    found = adapter.see(torch.zeros(3, 3, 20, 24), originals.names)
    assert ((found.reconstruction[:, 0, 0, 0] + 1) * 127.5).round().tolist() == [0, 1, 2]
    assert found.bits is not None
    assert found.bits.isnan().all()
    with pytest.raises(UserError, match=r"0\.bmp: 24 x 20 pixels, its original has 16 x 16 under this protocol"):
        adapter.see(torch.zeros(1, 3, 16, 16), ["0.png"])


def test_folders_that_are_no_pairs_are_told(tmp_path: Path) -> None:
    photos(tmp_path / "in", 3)
    photos(tmp_path / "made", 3)
    (tmp_path / "made" / "1.png").rename(tmp_path / "made" / "one.png")
    with pytest.raises(UserError, match=r"1 of 3 originals have no reconstruction, 1 files no original") as caught:
        open_adapter(f"images:{tmp_path / 'made'}", originals=ImageFolder(str(tmp_path / "in")).names)
    assert "no reconstruction of 1.png" in str(caught.value)
    assert "no original of one" in str(caught.value)


def test_names_that_differ_in_their_suffix_only_are_paired_by_the_whole_name(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "sub/a.png", "frame.0001.png", "frame.0002.png", "\u00fc \u56fe.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (len(name), 0, 0)).save(tmp_path / name)
    names = ImageFolder(str(tmp_path)).names
    adapter: Any = open_adapter(f"images:{tmp_path}", originals=names)
    assert [names[adapter.index[name]] for name in names] == list(names)
    with pytest.raises(UserError, match=r"a\.bmp may be a\.jpg or a\.png: expected one of that name"):
        open_adapter(f"images:{tmp_path}", originals=["a.bmp"])
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(UserError, match="1 files are of several originals that differ in their suffix only"):
        open_adapter(f"images:{tmp_path}", originals=names)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("jpeg:q=0", "q=0: expected 1 to 100"),
        ("jpeg:quality=3", "expected jpeg:q=1..100"),
        ("tests.evaluation.tokenizers:nowhere", "nowhere"),
        ("tests.evaluation.nowhere:half", "nowhere"),
        ("os:abort", "Python's standard library"),
        ("subprocess:Popen", "Python's standard library"),
        ("tests.evaluation.tokenizers:photos", "expected a module with encode, decode, factor, codebook_sizes"),
        ("tests.evaluation.tokenizers:nothing", "expected a module with encode, decode, factor, codebook_sizes"),
        ("nowhere", "nowhere"),
    ],
)
def test_words_that_mean_nothing_are_refused(words: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        open_adapter(words)


def test_a_class_is_made_and_an_object_is_taken() -> None:
    for name in ("Halver", "half"):
        adapter = open_adapter(f"tests.evaluation.tokenizers:{name}")
        assert adapter.name == name
        assert torch.equal(adapter.see(IMAGES, NAMES).reconstruction, IMAGES * 0.5)


RETURNS = {
    "latent": lambda z, tokens: z,
    "tokens": lambda z, tokens: tokens,
    "tuple": lambda z, tokens: (z, torch.zeros(()), (None, torch.zeros(3, 16), tokens.flatten())),
    "pair": lambda z, tokens: (z, tokens),
    "latents": lambda z, tokens: SimpleNamespace(latents=z),
    "named": lambda z, tokens: {"z": z, "codes": tokens[:, None]},
    "output": lambda z, tokens: BottleneckOutput(latent=z, indices=tokens[:, None]),
}


class Returning(torch.nn.Module):
    """Means of 4 x 4 pixels, and tokens of them, returned in some way."""

    factor = 4

    def __init__(self, way: str, sizes: dict[str, int], decoded: Any = lambda images: images) -> None:
        super().__init__()
        self.way, self.codebook_sizes, self.decoded = way, sizes, decoded

    def encode(self, images: torch.Tensor) -> Any:
        means = torch.nn.functional.avg_pool2d(images, 4)
        return RETURNS[self.way](means, (means[:, 0] * 7.5 + 7.5).long())

    def decode(self, latent: torch.Tensor) -> Any:
        values = latent if latent.is_floating_point() else (latent[:, None].float() / 7.5 - 1).expand(-1, 3, -1, -1)
        return self.decoded(values.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3))


@pytest.mark.parametrize("way", RETURNS)
@pytest.mark.parametrize(
    "decoded", [lambda images: images, lambda images: (images, None), lambda images: SimpleNamespace(sample=images)]
)
def test_whatever_a_tokenizer_returns_is_understood(way: str, decoded: Any) -> None:
    found = Ours(Returning(way, {"only": 16}, decoded), "mine", "here").see(IMAGES[..., :30], NAMES)
    means = torch.nn.functional.avg_pool2d(pad_to_multiple(IMAGES[..., :30], 4), 4)
    tokens = (means[:, 0] * 7.5 + 7.5).long()
    expected = (tokens[:, None] / 7.5 - 1).expand(-1, 3, -1, -1) if way == "tokens" else means
    by_hand = torch.nn.functional.interpolate(expected, scale_factor=4)[..., :30]
    torch.testing.assert_close(found.reconstruction, by_hand)
    assert found.bits is not None
    if way in {"latent", "latents"}:
        assert found.bits.tolist() == [means[0].numel() * 32.0] * 2
    else:
        assert found.bits.tolist() == [tokens[0].numel() * 4.0] * 2
        assert found.bottleneck.indices is not None
        assert torch.equal(found.bottleneck.indices[:, 0].flatten(), tokens.flatten())


@pytest.mark.parametrize(
    ("encoded", "decoded", "says"),
    [
        (lambda z, t: (z, t, t), None, "encode gave 2 tensors of whole numbers"),
        (lambda z, t: (None, torch.zeros(3)), None, "encode gave a tuple of a NoneType, torch.float32"),
        (lambda z, t: "latent", None, "encode gave a str: expected a latent"),
        (lambda z, t: (z, t.flatten()[:-1]), None, "expected 1 for each place of 2 images"),
        (lambda z, t: z, lambda images: images[..., :-1], "expected the same shape"),
        (lambda z, t: z, lambda images: None, "decode gave a NoneType"),
        (lambda z, t: z, lambda images: images.to(torch.uint8), "decode gave torch.uint8"),
    ],
)
def test_what_is_not_understood_is_said(monkeypatch: pytest.MonkeyPatch, encoded: Any, decoded: Any, says: str) -> None:
    monkeypatch.setitem(RETURNS, "odd", encoded)
    with pytest.raises(UserError, match=says):
        Ours(Returning("odd", {"only": 16}, decoded or (lambda images: images)), "mine", "here").see(IMAGES, NAMES)


def test_tokens_of_no_codebook_are_said() -> None:
    with pytest.raises(UserError, match="codebook_sizes is empty"):
        Ours(Returning("tokens", {}), "mine", "here").see(IMAGES, NAMES)


@torch.no_grad()
def test_each_of_several_codebooks_is_put_to_its_mean(tmp_path: Path) -> None:
    model = smalti.build("tiny-fqgan-triple-f8").eval()
    found = Ours(model, "dual", "here").see(IMAGES[..., :30], NAMES)
    first, second, third = model.codebook_terms
    assert list(found.ablations) == [first, second, third]
    latent = model.encode(pad_to_multiple(IMAGES[..., :30], model.factor)).latent
    means = model.bottleneck.mean_latent()
    start, end = (sum(list(model.bottleneck.codebook_channels.values())[:count]) for count in (1, 2))
    latent[:, start:end] = means[start:end, None, None]
    torch.testing.assert_close(found.ablations[second](), model.decode(latent)[..., :32, :30])
    metric = CodebookReport()
    accumulator = metric.create()
    metric.begin(accumulator, model.codebook_sizes)
    metric.update(accumulator, found)
    told = accumulator.compute()
    expected = psnr(found.ablations[second](), IMAGES[..., :30]).double().mean()
    assert float(told[f"codebook_report/{second}/psnr_at_mean"]) == pytest.approx(float(expected))
    assert f"codebook_report/{first}-{second}/mutual_information" in told
    rounded = under(found, "round").ablations[first]()
    torch.testing.assert_close((rounded + 1) * 127.5, ((rounded + 1) * 127.5).round())


def test_what_diffusers_has_not_is_said(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(UserError, match="no autoencoder of diffusers"):
        open_adapter(str(tmp_path))
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderTiny"}')
    with pytest.raises(UserError, match="diffusers cannot read it"):
        open_adapter(str(tmp_path))
