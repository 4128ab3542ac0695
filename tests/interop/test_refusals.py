"""What is no autoencoder that smalti reads, or no weights at all: called by its name."""

import gzip
import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import smalti
from smalti.interop._recognise import format_named
from smalti.interop.conversion import export_state, import_checkpoint
from smalti.models.mlp_generator import MLPGenerator
from smalti.registry import UserError
from tests.interop.checkpoints import save, tiny_kl, tiny_vq

NAME = "diffusion_pytorch_model.safetensors"


def refusal(path: Path) -> str:
    """The same message on both ways in."""
    with pytest.raises(UserError) as caught:
        smalti.load(path)
    with pytest.raises(UserError) as again:
        import_checkpoint(path)
    assert str(caught.value) == str(again.value)
    return str(caught.value)


def zeros(*keys: str, shape: tuple[int, ...] = (4, 4, 3, 3)) -> dict[str, Tensor]:
    return {key: torch.zeros(shape) for key in keys}


# Classes of diffusers.


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("AutoencoderTiny", "TAESD"),
        ("AsymmetricAutoencoderKL", "whose decoder sees a mask"),
        ("AutoencoderDC", "DC-AE"),
        ("AutoencoderKLTemporalDecoder", "videos"),
        ("AutoencoderKLWan", "videos"),
        ("AutoencoderKLCogVideoX", "videos"),
        ("AutoencoderKLLTXVideo", "videos"),
        ("AutoencoderKLHunyuanVideo", "videos"),
        ("ConsistencyDecoderVAE", "consistency"),
        ("AutoencoderOobleck", "sound"),
        ("UNet2DConditionModel", "U-Net"),
        ("FluxTransformer2DModel", "diffusion transformer"),
        ("FlaxAutoencoderKL", "Flax"),
        ("SomethingNew", "a class of another library"),
    ],
)
@pytest.mark.parametrize("weights", [True, False])
def test_a_class_that_is_not_read_is_named(tmp_path: Path, name: str, what: str, weights: bool) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": name, "block_out_channels": [32]}))
    if weights:
        save(tmp_path / NAME, export_state(tiny_kl(), format_named("diffusers")).state)
    for path in (tmp_path, tmp_path / NAME) if weights else (tmp_path,):
        message = refusal(path)
        assert f"{name}, " in message
        assert what in message
        assert "smalti reads AutoencoderKL and VQModel" in message


@pytest.mark.parametrize("name", [3, None, ["AutoencoderKL"], {}, ""])
def test_a_class_that_is_no_name_is_an_error(tmp_path: Path, name: object) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": name}))
    assert f"_class_name={name!r}: expected the name of a class" in refusal(tmp_path)


def test_a_configuration_of_something_else_beside_a_file_does_not_matter(tmp_path: Path) -> None:
    """A folder of downloads."""
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    model = tiny_vq()
    found = smalti.load(save(tmp_path / "vq.ckpt", export_state(model, format_named("taming")).state)).state_dict()
    assert all(torch.equal(value, found[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("state", "what"),
    [
        (zeros("encoder.layers.0.weight", "encoder.layers.1.conv.0.weight"), "AutoencoderTiny (TAESD)"),
        (zeros("0.weight", "1.conv.0.weight", "1.conv.2.weight"), "AutoencoderTiny (TAESD)"),
        (zeros("1.weight", "3.conv.0.weight"), "AutoencoderTiny (TAESD)"),
        (zeros("decoder.1.weight", "decoder.3.conv.0.weight"), "AutoencoderTiny (TAESD)"),
        (zeros("taesd_encoder.0.weight", "taesd_encoder.1.conv.0.weight"), "AutoencoderTiny (TAESD)"),
        (zeros("encoder.conv_in.weight", "encoder.down_blocks.0.0.conv1.weight"), "AutoencoderDC (DC-AE)"),
        (zeros("encoder.down_blocks.0.resnets.0.norm1.weight", "decoder.condition_encoder.x"), "Asymmetric"),
        (zeros("encoder.down_blocks.0.resnets.0.norm1.weight", "decoder_unet.x"), "ConsistencyDecoderVAE"),
        (zeros("encoder.conv1.weight", "decoder.conv1.weight", shape=(4, 4, 3, 3, 3)), "an autoencoder of videos"),
        (zeros("encoder.down.0.block.0.conv1.weight", shape=(4, 4, 3, 3, 3)), "an autoencoder of videos"),
        (zeros("down_blocks.0.attentions.0.proj_in.weight"), "U-Net"),
        (zeros("single_transformer_blocks.0.x"), "diffusion transformer"),
    ],
)
def test_other_networks_are_told_from_their_keys(tmp_path: Path, state: dict[str, Tensor], what: str) -> None:
    assert what in refusal(save(tmp_path / "x.safetensors", state))


# Pipelines.


@pytest.mark.parametrize(("name", "kind"), [("vae", "AutoencoderKL"), ("vqvae", "VQModel"), ("coder", "AutoencoderKL")])
def test_the_autoencoder_of_a_pipeline_is_taken(tmp_path: Path, name: str, kind: str) -> None:
    model = tiny_kl() if kind == "AutoencoderKL" else tiny_vq()
    parts = {"_class_name": "P", name: ["diffusers", kind], "unet": ["diffusers", "UNet2DModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(parts))
    for folder in (name, "unet"):
        (tmp_path / folder).mkdir()
    save(tmp_path / name / NAME, export_state(model, format_named("diffusers")).state)
    found = smalti.load(tmp_path).state_dict()
    assert all(torch.equal(value, found[key]) for key, value in model.state_dict().items())


def test_a_pipeline_with_none_or_two_names_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    assert "without vae, vqvae, movq: it has no folders" in refusal(tmp_path)
    (tmp_path / "unet").mkdir()
    assert "it has unet" in refusal(tmp_path)
    for name in ("vae", "movq"):
        (tmp_path / name).mkdir()
    assert f"name one: {tmp_path / 'movq'}, {tmp_path / 'vae'}" in refusal(tmp_path)
    for text, message in (("{", "no JSON"), ("[]", "expected the parts of a pipeline")):
        (tmp_path / "model_index.json").write_text(text)
        assert message in refusal(tmp_path)


def test_the_only_autoencoder_of_a_pipeline_that_is_read_is_taken_whatever_lies_beside_it(tmp_path: Path) -> None:
    parts = {"vae": "AutoencoderTiny", "vqvae": "VQModel"}
    (tmp_path / "model_index.json").write_text(json.dumps({name: ["diffusers", kind] for name, kind in parts.items()}))
    for name, kind in parts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"_class_name": kind}))
    model = tiny_vq()
    save(tmp_path / "vqvae" / NAME, export_state(model, format_named("diffusers")).state)
    found = smalti.load(tmp_path).state_dict()
    assert all(torch.equal(value, found[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("entry", ["architectures", "model_type", "transformers_version"])
def test_a_folder_of_transformers_is_no_damaged_one_of_ours(tmp_path: Path, entry: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({entry: "clip"}))
    save(tmp_path / "model.safetensors", {"vision_model.embeddings.class_embedding": torch.zeros(1)})
    assert "no known format" in refusal(tmp_path)


# No weights.


def _gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(b"x"))


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("x"), io.BytesIO())


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "x")


def _npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.ones(2))


def _cut(path: Path) -> None:
    save(path.with_suffix(".pt"), {"a": torch.zeros(999)})
    path.write_bytes(path.with_suffix(".pt").read_bytes()[:900])


def _script(path: Path) -> None:
    """The entries of torch.jit.save, which future versions of torch will not write."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x/data.pkl", "x/code/__torch__/linear.py", "x/constants.pkl", "x/version"):
            archive.writestr(name, b"")


def content(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt", ".txt", ""])
@pytest.mark.parametrize(
    ("write", "what"),
    [
        (content(b""), "damaged, it is empty"),
        (content(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n"), "a pointer of Git LFS"),
        (content(b"\n<!DOCTYPE html>\n<html>"), "a page of HTML"),
        (content("Grüße und mehr\nzwei".encode()), "it is text, which begins with 'Grüße und mehr'"),
        (content("Grüße".encode("latin-1")), "it is text"),
        (content("Grüße".encode("utf-16")), "it is text"),
        (content(("x" + "ü" * 2000).encode()), "it is text"),
        (content(b"model: {type: x}\n"), "it is text"),
        (content(b'{"a": 1}'), "it is text"),
        (content(b"GGUF\x03\0\0\0"), "GGUF"),
        (content(b"\x08\x07\x12\x07pytorch\x1a\x032.0"), "ONNX"),
        (content(b"\x89HDF\r\n\x1a\n\0\0"), "HDF5"),
        (content(b"\x93NUMPY\x01\0"), "an array of numpy"),
        (content(b"\x89PNG\r\n\x1a\n"), "an image"),
        (content(b"\x84\xa6params\x80"), "Flax"),
        (content(b"\x1c\0\0\0TFL3"), "TensorFlow Lite"),
        (_npz, "npz, arrays of numpy"),
        (_gzip, "compressed by gzip: unpack it first"),
        (_tar, "a tar archive: unpack it first"),
        (_zip, "a zip archive and no checkpoint of torch, it holds a.txt"),
        (_cut, "damaged, it begins as a zip"),
        (_script, "a program of TorchScript"),
    ],
)
def test_a_file_that_holds_no_weights_is_called_by_its_name(
    tmp_path: Path, write: Callable[[Path], None], what: str, suffix: str
) -> None:
    path = tmp_path / f"file{suffix}"
    write(path)
    message = refusal(path)
    assert what in message
    assert str(path) in message


@pytest.mark.parametrize(
    "data", [b"\x08", b"\x81", b"P", b"\0", b"\x80", b"{", b"\xff" * 9, b"\x02" + bytes(7) + b"{}"]
)
def test_a_few_bytes_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(data)
    assert "x.ckpt" in refusal(path)


def test_a_file_is_read_by_its_bytes_whatever_its_suffix(tmp_path: Path) -> None:
    model = tiny_vq()
    state = export_state(model, format_named("taming")).state
    for written, name in (("a.safetensors", "a.ckpt"), ("b.ckpt", "b.safetensors")):
        save(tmp_path / written, state).rename(tmp_path / name)
        found = smalti.load(tmp_path / name).state_dict()
        assert all(torch.equal(value, found[key]) for key, value in model.state_dict().items())


def test_a_pickle_of_text_runs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(pickle.dumps({"a": MLPGenerator}, protocol=0))
    assert "no weights: it is text" in refusal(path)
