"""The autoencoder: tokens give back the reconstruction, sizes, saving and loading, and what is damaged is named."""

import json
from pathlib import Path

import pytest
import torch

import smalti
from smalti.bottlenecks.gaussian import Gaussian
from smalti.bottlenecks.identity import Identity
from smalti.config import build, config_of
from smalti.models import Model
from smalti.models.autoencoder import Autoencoder
from smalti.models.conv import ConvDecoder, ConvEncoder
from smalti.registry import UserError
from tests.quantized import one_codebook

BOTTLENECKS = {
    "identity": lambda: Identity(in_channels=6, latent_channels=3),
    "gaussian": lambda: Gaussian(in_channels=6, latent_channels=3),
    "vector_quantizer": lambda: one_codebook(6, 8, 3, init="kmeans"),
}
every_bottleneck = pytest.mark.parametrize("kind", BOTTLENECKS)
TINY = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "groups": 4, "image_channels": 3}


def model(kind="vector_quantizer", **options):
    torch.manual_seed(0)
    encoder = ConvEncoder(**{**TINY, **options}, out_channels=6)
    decoder = ConvDecoder(**{**TINY, **options}, latent_channels=3, z_channels=6)
    return Autoencoder(encoder, BOTTLENECKS[kind](), decoder)


@every_bottleneck
def test_training_forward_reconstructs_and_every_parameter_gets_a_gradient(kind):
    made = model(kind)
    output = made.training_forward({"image": torch.randn(2, 3, 8, 12)})
    assert output.reconstruction.shape == (2, 3, 8, 12)
    records = output.bottleneck.codebooks.values()
    losses = [(record.quantized - record.z.detach()).square().mean() for record in records]
    (output.reconstruction.square().mean() + sum(losses)).backward()
    assert all(parameter.grad is not None for parameter in made.parameters())


@torch.no_grad()
def test_decoding_tokens_equals_decoding_the_latent_bit_for_bit():
    made = model().eval()
    images = torch.randn(3, 3, 10, 6)
    output = made.encode(images)
    expected = made.decode(output.latent)
    assert torch.equal(made.decode_indices(output.indices), expected)
    assert torch.equal(made(images).reconstruction, expected)
    assert torch.equal(made.reconstruct(images), expected)
    made.bottleneck.branches.codebook.quantizer.initialized.fill_(True)  # or k-means would start
    made.train()
    assert torch.equal(made.training_forward({"image": images}).reconstruction, expected)


@every_bottleneck
def test_noise_has_the_shape_the_model_says(kind):
    made = model(kind)
    images, shape = torch.randn(2, 3, 8, 12), made.noise_shape((3, 8, 12))
    assert shape == ((3, 4, 6) if kind == "gaussian" else None)
    batch = {"image": images} if shape is None else {"image": images, "noise": torch.randn(2, *shape)}
    first, second = (made.training_forward(batch).reconstruction for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 1), (1, 6), (3, 17)])
@pytest.mark.parametrize("patch_size", [1, 4])
@torch.no_grad()
def test_reconstruct_takes_any_size(size, patch_size):
    made = model(patch_size=patch_size).eval()
    images = torch.randn(2, 3, *size)
    result = made.reconstruct(images)
    assert result.shape == images.shape
    height, width = (-(-side // made.factor) * made.factor for side in size)
    wide = torch.nn.functional.pad(images, (0, width - size[1], 0, height - size[0]), mode="replicate")
    if size == (1, 1):  # too small to reflect
        assert torch.equal(result, made.decode(made.encode(wide).latent)[..., :1, :1])


def test_sizes_that_do_not_divide_name_the_way_out():
    made = model()
    message = r"images of 7 x 8 pixels: expected both divisible by the factor 2; reconstruct\(\) pads and crops"
    for call in (made.encode, made, lambda images: made.training_forward({"image": images})):
        with pytest.raises(UserError, match=message):
            call(torch.randn(1, 3, 7, 8))


@pytest.mark.parametrize("call", ["encode", "forward", "reconstruct"])
def test_images_of_another_range_are_told_before_they_become_wrong_tokens(call: str) -> None:
    shades = torch.arange(256.0).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    with pytest.raises(UserError, match=r"images / 127\.5 - 1"):
        getattr(model("gaussian").eval(), call)(shades)
    made = model("gaussian").eval()
    with pytest.warns(UserWarning, match=r"2 \* images - 1"):
        getattr(made, call)(shades / 255)
    getattr(made, call)(shades / 255)  # said once
    for images in (shades / 127.5 - 1, (shades / 127.5 - 1).clamp(min=1 / 255), torch.ones(1, 3, 16, 16)):
        getattr(model("gaussian").eval(), call)(images)  # bright, but bytes in [-1, 1]; of one colour
    getattr(model("gaussian").eval().bfloat16(), call)((shades / 255).bfloat16())  # too coarse to tell
    getattr(model("gaussian").train(), call)(shades)  # in training the doctor looks


def test_wrong_channels_and_tokens_are_named():
    made = model()
    with pytest.raises(UserError, match=r"images with shape \(1, 1, 8, 8\): expected \(B, 3, H, W\)"):
        made.encode(torch.randn(1, 1, 8, 8))
    with pytest.raises(UserError, match=r"indices of 'codebook' from 0 to 8: expected 0 to 7"):
        made.decode_indices(torch.tensor([[[[0, 8]]]]))
    with pytest.raises(UserError, match=r"indices with shape \(1, 2, 2\): expected \(B, 1, h, w\)"):
        made.decode_indices(torch.zeros(1, 2, 2, dtype=torch.int64))
    with pytest.raises(UserError, match=r"indices of type torch\.float32: expected whole numbers"):
        made.decode_indices(torch.zeros(1, 1, 2, 2))
    assert made.decode_indices(torch.zeros(1, 1, 2, 3, dtype=torch.uint8)).shape == (1, 3, 4, 6)
    with pytest.raises(UserError, match="Gaussian is continuous"):
        model("gaussian").decode_indices(torch.zeros(1, 1, 2, 2, dtype=torch.int64))


def test_what_is_no_tensor_is_named():
    made = model().eval()
    code = made.encode(torch.zeros(1, 3, 8, 8))
    for call, given, said in (
        (made.encode, "cat.png", "images: a str, expected a tensor"),
        (made.reconstruct, [[1]], "images: a list, expected a tensor"),
        (made.decode_indices, code.indices.numpy(), "indices: a ndarray, expected a tensor"),
        (made.decode, code, "latent: a BottleneckOutput, expected a tensor .* its field 'latent'"),
        (made.decode, code.latent[:, :1], "latent with shape"),
    ):
        with pytest.raises(UserError, match=said):
            call(given)


def test_no_images_are_no_tokens_and_no_images_again():
    made = model().eval()
    assert made.decode_indices(made.encode(torch.zeros(0, 3, 8, 8)).indices).shape == (0, 3, 8, 8)


def test_parts_that_do_not_fit_are_all_named():
    encoder = ConvEncoder(**TINY, out_channels=6)
    decoder = ConvDecoder(**{**TINY, "multipliers": (1, 2, 2), "image_channels": 1}, latent_channels=4, z_channels=6)
    with pytest.raises(ValueError, match=r"decoder\.latent_channels=4") as error:
        Autoencoder(encoder, Identity(in_channels=5, latent_channels=3), decoder)
    for part in ("bottleneck.in_channels=5", "decoder.factor=4", "decoder.image_channels=1"):
        assert part in str(error.value)


def test_update_reaches_the_bottleneck():
    made = model()
    outputs = [made.training_forward({"image": torch.randn(2, 3, 8, 8)}) for _ in range(2)]
    made.update(outputs)
    assert made.bottleneck.usage()["codebook"]["usage"] > 0.0
    assert made.bottleneck.branches.codebook.quantizer.initialized


@every_bottleneck
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@torch.no_grad()
def test_loaded_equals_saved(tmp_path, kind, dtype):
    made = model(kind).to(dtype)
    made.update([made(torch.randn(2, 3, 8, 8))])
    made.save_pretrained(tmp_path)
    before = torch.random.get_rng_state()
    loaded = Autoencoder.from_pretrained(tmp_path)
    assert torch.equal(before, torch.random.get_rng_state()), "loading draws nothing"
    assert not loaded.training
    assert config_of(loaded) == config_of(made)
    for name, value in made.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
        assert loaded.state_dict()[name].dtype == value.dtype
    images = torch.randn(1, 3, 8, 8)
    assert torch.equal(loaded.reconstruct(images), made.eval().reconstruct(images))
    assert {p.requires_grad for p in loaded.parameters()} == {p.requires_grad for p in made.parameters()}
    assert not list(tmp_path.glob(".*")), "no temporary file is left"


@pytest.fixture
def saved(tmp_path):
    model().save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(UserError, match=f"{name}: no such file"):
        Autoencoder.from_pretrained(saved)


@pytest.mark.parametrize("position", [0, 8, 100, -1])
def test_a_flipped_byte_is_noticed(saved, position):
    path = saved / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"model\.safetensors: damaged"):
        Autoencoder.from_pretrained(saved)


def test_a_truncated_file_is_noticed(saved):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="damaged"):
        Autoencoder.from_pretrained(saved)


def change(saved, edit):
    path = saved / "config.json"
    config = json.loads(path.read_text())
    edit(config)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON"),
        ("[]", "expected a mapping"),
        ('{"model": 3}', "expected a mapping"),
        ('{"model": {}}', "format"),
    ],
)
def test_a_damaged_configuration_is_named(saved, text, message):
    (saved / "config.json").write_text(text)
    with pytest.raises(UserError, match=rf"config\.json: .*{message}"):
        Autoencoder.from_pretrained(saved)


def test_a_configuration_of_another_model_lists_what_does_not_fit(saved):
    quantizer = {"type": "nearest", "size": 9, "channels": 3}
    change(saved, lambda config: config["model"]["bottleneck"]["codebooks"]["codebook"].update(quantizer=quantizer))
    with pytest.raises(UserError, match=r"quantizer\.weight has shape \(8, 3\), expected \(9, 3\)") as error:
        Autoencoder.from_pretrained(saved)
    assert "unexpected bottleneck.branches.codebook.quantizer.initialized" in str(error.value)


def test_weights_without_a_checksum_are_refused(saved):
    change(saved, lambda config: config.pop("weights_sha256"))
    with pytest.raises(UserError, match="no 'weights_sha256'"):
        Autoencoder.from_pretrained(saved)


class Foreign(Identity):
    """A class outside the package."""


def test_foreign_classes_load_only_if_trusted(tmp_path):
    made = model("identity")
    made = Autoencoder(made.encoder, Foreign(in_channels=6, latent_channels=3), made.decoder)
    made.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="trust_code=True"):
        Autoencoder.from_pretrained(tmp_path)
    assert isinstance(Autoencoder.from_pretrained(tmp_path, trust_code=True).bottleneck, Foreign)


@pytest.mark.parametrize("source", ["./nowhere", "/nowhere/at/all", "nowhere", "no such/repository name"])
def test_an_unknown_source_is_a_clear_error(source):
    with pytest.raises(UserError, match="folder"):
        Autoencoder.from_pretrained(source)


def test_an_unreachable_repository_is_a_clear_error(tmp_path):
    with pytest.raises(UserError, match="owner/name: neither a folder here nor a reachable repository"):
        Autoencoder.from_pretrained("owner/name", cache_dir=tmp_path, local_files_only=True)


def test_pushing_uploads_what_saving_writes(monkeypatch):
    uploaded = {}

    class Hub:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo_id, **options):
            return type("Repository", (), {"repo_id": repo_id})

        def upload_folder(self, *, folder_path, **options):
            uploaded.update({path.name: path.read_bytes() for path in folder_path.iterdir()})
            return "the commit"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Hub)
    assert model().push_to_hub("owner/name") == "the commit"
    assert uploaded.keys() == {"config.json", "model.safetensors", "README.md"}


def test_build_of_config_rebuilds_it():
    made = model()
    rebuilt = build(config_of(made), Model)
    assert config_of(rebuilt) == config_of(made)
    assert rebuilt.load_state_dict(made.state_dict())
    assert json.loads(json.dumps(config_of(made))) == config_of(made)


def test_it_is_saved_in_the_home_folder_and_at_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    model = smalti.build("tiny-vqvae")
    model.save_pretrained("~/saved")
    assert (tmp_path / "saved" / "model.safetensors").is_file()
    assert smalti.load("~/saved").factor == model.factor
    with pytest.raises(UserError, match="s3://bucket/model"):
        model.save_pretrained("s3://bucket/model")
