"""``convert`` and ``latent-stats`` as a user meets them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import smalti
from smalti.data.image_folder import ImageFolder
from smalti.data.loader import evaluation_batches, to_device
from smalti.data.transforms import Transform
from smalti.interop._recognise import format_named
from smalti.interop.conversion import export_state
from smalti.metrics._latents import latent_statistics
from smalti.models._latents import LatentScale
from smalti.models._pretrained import set_options
from smalti.models.mlp_generator import MLPGenerator
from smalti.registry import UserError
from tests.cli.conftest import Verb
from tests.conftest import GOLDEN
from tests.interop.checkpoints import save, tiny_kl, tiny_vq

KL = GOLDEN / "ldm/kl_tiny_state.safetensors"


def test_a_conversion_says_what_it_did(smalti_cli: Verb, tmp_path: Path) -> None:
    result = smalti_cli("convert", KL, tmp_path / "ours")
    assert result.exit_code == 0
    for line in (
        "latent-diffusion / taming-transformers -> smalti, raw weights",
        "every tensor bit-equal",
        "dropped: loss.perceptual_loss",
        "LPIPS, a frozen network of the loss",
        "discriminator (--keep-discriminator carries it)",
        "largest difference",
    ):
        assert line in result.stdout
    assert smalti.load(tmp_path / "ours").factor == 2


def test_json_holds_the_same(smalti_cli: Verb, tmp_path: Path) -> None:
    result = smalti_cli("convert", KL, tmp_path / "ours", "--keep-discriminator", "--json")
    found = json.loads(result.stdout)
    assert found["discriminator"]
    assert found["largest_difference"] < 1e-5
    assert set(found["dropped"]) == {
        "LPIPS, a frozen network of the loss",
        "scale of the loss, which the original never trains",
    }
    assert (tmp_path / "ours" / "discriminator" / "config.json").is_file()


def test_a_checkpoint_goes_through_every_format_and_comes_back(smalti_cli: Verb, tmp_path: Path) -> None:
    model = tiny_vq()
    model.save_pretrained(tmp_path / "ours")
    for source, target, format in (
        ("ours", "a.ckpt", "taming"),
        ("a.ckpt", "b", "diffusers"),
        ("b", "c.safetensors", "latent-diffusion"),
        ("c.safetensors", "again", "smalti"),
    ):
        result = smalti_cli("convert", tmp_path / source, tmp_path / target, "--to", format)
        assert result.exit_code == 0, result.stderr
    again = smalti.load(tmp_path / "again").state_dict()
    assert all(torch.equal(value, again[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(("format", "name"), [("llamagen", "llamagen_ds8"), ("fqgan", "dual_ds16")])
def test_tokenizers_go_back_as_they_came(smalti_cli: Verb, golden: Any, tmp_path: Path, format: str, name: str) -> None:
    tensors = golden(f"fqgan/tokenizer_{name}.safetensors")
    state = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
    save(tmp_path / "there.pt", {}, model=state)
    assert smalti_cli("convert", tmp_path / "there.pt", tmp_path / "ours").exit_code == 0
    assert smalti_cli("convert", tmp_path / "ours", tmp_path / "back.pt", "--to", format).exit_code == 0
    back = torch.load(tmp_path / "back.pt", weights_only=True)["model"]
    used = {key for key in back if key.endswith("codebook_used")}
    assert used, "the original's loader asks for its usage counters"
    assert back.keys() - used == state.keys()
    assert all(torch.equal(value, back[key]) for key, value in state.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--weights", "ema"], "holds one set of weights"),
        (["--scaling-factor", 0.5], "--scaling-factor 0.5: has no effect on a model of smalti"),
        (["--heads", 4], "--heads 4: has no effect on a model of smalti"),
        (["--from", "taming"], "a model of smalti, and not latent-diffusion"),
        (["--keep-discriminator"], "the source has no discriminator"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    smalti_cli: Verb, tmp_path: Path, options: list[object], message: str
) -> None:
    tiny_kl().save_pretrained(tmp_path / "ours")
    result = smalti_cli("convert", tmp_path / "ours", tmp_path / "again", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "again").exists()


def test_a_discriminator_beside_our_own_model_is_carried_or_listed(smalti_cli: Verb, tmp_path: Path) -> None:
    first, second, third = tmp_path / "first", tmp_path / "second", tmp_path / "third"
    assert "loss.discriminator.main.0.bias, ..." in smalti_cli("convert", KL, tmp_path / "without").stdout
    assert smalti_cli("convert", KL, first, "--keep-discriminator").exit_code == 0
    assert smalti_cli("convert", first, second, "--keep-discriminator").exit_code == 0
    assert (first / "discriminator/model.safetensors").read_bytes() == (
        second / "discriminator/model.safetensors"
    ).read_bytes()
    assert "dropped: discriminator: discriminator (--keep" in smalti_cli("convert", second, third).stdout
    assert not (third / "discriminator").exists()


@pytest.mark.parametrize("format", ["taming", "diffusers"])
def test_a_scale_that_a_format_cannot_hold_is_told(smalti_cli: Verb, tmp_path: Path, format: str) -> None:
    model = tiny_vq()
    for name, latents, told in (
        ("none", None, False),
        ("one", {"shift": [0.0], "scale": [0.5]}, format == "taming"),
        ("each", {"shift": [0.0, 0.0, 0.0, 0.5], "scale": [1.0, 1.0, 1.0, 2.0]}, True),
    ):
        model.save_pretrained(tmp_path / name)
        set_options(tmp_path / name, latents=latents)
        result = smalti_cli("convert", tmp_path / name, tmp_path / f"{name}.ckpt", "--to", format)
        assert result.exit_code == 0, result.stderr
        assert ("note: scale and shift of the latents have no place" in result.stdout) is told


def test_latent_stats_name_the_image_that_does_not_fit(smalti_cli: Verb, tmp_path: Path) -> None:
    tiny_kl().save_pretrained(tmp_path / "ours")
    (tmp_path / "odd").mkdir()
    Image.new("RGB", (17, 16)).save(tmp_path / "odd" / "tile.png")
    result = smalti_cli("latent-stats", tmp_path / "ours", "--data", tmp_path / "odd")
    assert result.exit_code == 2
    assert "tile.png: 16 x 17 pixels" in result.stderr
    assert "--size resizes" in result.stderr


def test_latent_stats_ask_for_a_model_that_can_hold_them(smalti_cli: Verb, photos: Path) -> None:
    result = smalti_cli("latent-stats", KL, "--data", photos)
    assert result.exit_code == 2
    assert "`smalti convert` makes one" in result.stderr


def test_a_trained_run_that_no_format_can_hold_is_refused(smalti_cli: Verb, trained: Path, tmp_path: Path) -> None:
    result = smalti_cli("convert", trained, tmp_path / "vq", "--to", "diffusers")
    assert result.exit_code == 2
    assert "has no place" in result.stderr, "its patches and norms have no counterpart there"
    assert not (tmp_path / "vq").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.ckpt", "out"], "none.ckpt"),
        ([KL, "out", "--from", "llamagen"], "it looks like latent-diffusion"),
        ([KL, "out", "--from", "lama"], "unknown format 'lama'"),
        ([KL, "out", "--to", "nonsense"], "unknown format 'nonsense'"),
        ([KL, "out", "--weights", "ema"], "no averaged weights"),
        ([KL, "out", "--scaling-factor", "0"], "expected a positive number"),
        ([KL, "out", "--heads", "4"], "--heads 4: has no effect on latent-diffusion"),
        ([KL, "out.onnx", "--to", "taming"], "ends in .ckpt, .pt, .safetensors"),
        ([KL, "out.ckpt"], "a model of smalti is a folder; --to says the format of a file"),
        ([KL, "out.ckpt", "--to", "taming", "--keep-discriminator"], "written without one"),
        ([GOLDEN / "ldm/diffusers_kl_tiny_state.safetensors", "out", "--keep-discriminator"], "has no discriminator"),
    ],
)
def test_what_cannot_be_converted_is_one_message(
    smalti_cli: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = smalti_cli("convert", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_replaced_only_if_told(smalti_cli: Verb, tmp_path: Path) -> None:
    assert smalti_cli("convert", KL, tmp_path / "ours").exit_code == 0
    again = smalti_cli("convert", KL, tmp_path / "ours")
    assert again.exit_code == 2
    assert "--force" in again.stderr
    assert smalti_cli("convert", KL, tmp_path / "ours", "--force").exit_code == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    refused = smalti_cli("convert", KL, tmp_path / "mine", "--force")
    assert refused.exit_code == 2
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_verbs_read_foreign_checkpoints(smalti_cli: Verb, photos: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "vq.ckpt", export_state(tiny_vq(), format_named("taming")).state)
    result = smalti_cli("encode", path, "--data", photos, "--out", tmp_path / "tokens.npz")
    assert result.exit_code == 0, result.stderr


def test_measured_scale_and_shift_go_into_the_config_and_to_diffusers(
    smalti_cli: Verb, photos: Path, tmp_path: Path
) -> None:
    tiny_kl().save_pretrained(tmp_path / "ours")
    before = (tmp_path / "ours" / "model.safetensors").read_bytes()
    options = ("--data", photos, "--size", 16, "--json")
    assert smalti_cli("latent-stats", tmp_path / "ours", *options, "--dry-run").exit_code == 0
    assert smalti.load(tmp_path / "ours").latents is None
    found = json.loads(smalti_cli("latent-stats", tmp_path / "ours", *options).stdout)
    assert found["images"] == 2
    assert (tmp_path / "ours" / "model.safetensors").read_bytes() == before
    model = smalti.load(tmp_path / "ours")
    assert model.latents is not None
    assert list(model.latents.scale) == found["scale"]
    assert smalti_cli("convert", tmp_path / "ours", tmp_path / "there", "--to", "diffusers").exit_code == 0
    config = json.loads((tmp_path / "there" / "config.json").read_text())
    assert config["latents_mean"] == found["shift"]
    torch.testing.assert_close(torch.tensor(config["latents_std"]), 1 / torch.tensor(found["scale"]))


def test_what_is_measured_are_images_as_the_model_sees_them(smalti_cli: Verb, photos: Path, tmp_path: Path) -> None:
    """From -1 to 1, as ``encode`` takes them."""
    model = tiny_kl()
    model.save_pretrained(tmp_path / "ours")
    found = json.loads(
        smalti_cli("latent-stats", tmp_path / "ours", "--data", photos, "--size", 16, "--dry-run", "--json").stdout
    )
    source = ImageFolder(str(photos))
    batch = next(evaluation_batches(source, Transform(size=16, crop="adm_center"), 2))
    expected = latent_statistics(model, [to_device(batch, "cpu")])
    torch.testing.assert_close(torch.tensor(found["shift"]).double(), expected.mean, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match=r"torch\.uint8"):
        model.encode(batch["image"])


def test_a_run_folder_is_measured_too(smalti_cli: Verb, trained: Path, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    assert smalti_cli("latent-stats", tmp_path / "run", "--data", photos).exit_code == 0
    assert smalti.load(tmp_path / "run").latents is not None


@torch.no_grad()
def test_scaled_samples_have_mean_0_and_deviation_1() -> None:
    model = tiny_kl().double()
    batches = [{"image": torch.randn(size, 3, 16, 16, dtype=torch.float64)} for size in (3, 1, 4)]
    found = latent_statistics(model, batches)
    posterior = model.encode(torch.cat([batch["image"] for batch in batches])).posterior
    assert posterior is not None
    torch.testing.assert_close(found.mean, posterior.mean.mean(dim=(0, 2, 3)))
    variance = posterior.mean.var(dim=(0, 2, 3), correction=0) + posterior.var.mean(dim=(0, 2, 3))
    torch.testing.assert_close(found.std, variance.sqrt())
    latents = LatentScale(**found.config())
    scaled = latents.apply(posterior.mean)
    torch.testing.assert_close(scaled.mean(dim=(0, 2, 3)), torch.zeros(4, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(latents.invert(scaled), posterior.mean)
    drawn = torch.cat([posterior.sample() for _ in range(64)])
    torch.testing.assert_close(float(drawn.std(correction=0)), found.overall, rtol=0.02, atol=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"dear weights\n", "no weights: it is text, which begins with 'dear weights'"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"", "damaged, it is empty"),
        (b"PK\x03\x04", "cut off?"),
        (b"GGUF\x03\0\0\0", "GGUF"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_called_by_its_name(
    smalti_cli: Verb, tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "text.txt").write_bytes(content)
    result = smalti_cli("convert", tmp_path / "text.txt", tmp_path / "d")
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "d").exists()


def test_a_generator_is_no_autoencoder_to_convert(smalti_cli: Verb, tmp_path: Path) -> None:
    folder = tmp_path / "gan"
    MLPGenerator(image_size=8, image_channels=1, latent_size=4, widths=(8,)).save_pretrained(folder)
    for place in (folder, folder / "model.safetensors", folder / "config.json"):
        result = smalti_cli("convert", place, tmp_path / "d")
        assert result.exit_code == 2
        assert "a generator of images (MLPGenerator) that smalti trained and saved" in result.stderr
        assert "`smalti convert` translates autoencoders" in result.stderr
        assert "`smalti sample`" in result.stderr


def test_float8_is_told(smalti_cli: Verb, tmp_path: Path) -> None:
    state = export_state(tiny_kl(), format_named("diffusers")).state
    key = "encoder.conv_in.weight"
    scaled = {key: state[key].to(torch.float8_e4m3fn), "encoder.conv_in.scale_weight": torch.ones(())}
    path = save(tmp_path / "vae.safetensors", state | scaled)
    result = smalti_cli("convert", path, tmp_path / "ours")
    assert result.exit_code == 0, result.stderr
    assert "note: 1 tensors of the file had been rounded to 8 bits (float8_e4m3fn)" in result.stdout
    assert "dropped: encoder.conv_in.scale_weight: scale of float8 weights, multiplied into them" in result.stdout


@pytest.mark.parametrize(
    ("place", "messages"),
    [
        ("checkpoints/4", ["no such folder: write ", "@4"]),
        ("checkpoints/9", ["@last or ", "steps there: 2, 4"]),
        ("checkpoints/best", ["@last or ", "steps there: 2, 4"]),
        ("checkpoints/00000004/state.pt", ["a file of a checkpoint: write ", "@4"]),
        ("checkpoints", ["all checkpoints of a run", "@last"]),
        ("model", ["--resume", "@last or ", "steps there: 2, 4"]),
        ("", ["--resume", "@last or ", "steps there: 2, 4"]),
    ],
)
def test_places_in_a_stopped_run_say_what_to_write(
    smalti_cli: Verb, trained: Path, tmp_path: Path, place: str, messages: list[str]
) -> None:
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("model"))
    result = smalti_cli("convert", tmp_path / "run" / place, tmp_path / "d")
    assert result.exit_code == 2
    for message in messages:
        assert message in result.stderr
