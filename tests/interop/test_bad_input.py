"""Checkpoints as people have them: each comes in right, or is refused with a message that says what is wrong."""

import argparse
import datetime
import os
import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import smalti
from smalti.interop import ImportOptions
from smalti.interop._recognise import format_named
from smalti.interop.conversion import export_state, import_checkpoint
from smalti.interop.converting import convert
from smalti.models.autoencoder import Autoencoder
from smalti.registry import UserError
from tests.interop.checkpoints import save, tiny_kl, tiny_vq

State = dict[str, Tensor]


@pytest.fixture
def model() -> Autoencoder:
    return tiny_vq()


@pytest.fixture
def state(model: Autoencoder) -> State:
    """A state dict in taming's layout."""
    return export_state(model, format_named("taming")).state


def same(found: Autoencoder, model: Autoencoder) -> bool:
    theirs, ours = found.state_dict(), model.state_dict()
    return theirs.keys() == ours.keys() and all(torch.equal(value, ours[key]) for key, value in theirs.items())


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        import_checkpoint(path, **options)
    assert str(path.name) in str(caught.value)
    return str(caught.value)


# Files.


@pytest.mark.parametrize("name", ["vq.safetensors", "vq.ckpt"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_called_damaged(state: State, tmp_path: Path, name: str, share: float) -> None:
    path = save(tmp_path / name, state)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "damaged" in refusal(path)


def test_a_missing_file_and_an_empty_folder_are_named(tmp_path: Path) -> None:
    assert "no such file or folder" in refusal(tmp_path / "none.ckpt")
    assert "no weights here" in refusal(tmp_path)


def test_a_folder_without_configuration_is_told_from_its_tensors(model: Autoencoder, tmp_path: Path) -> None:
    exported = export_state(model, format_named("diffusers")).state
    (tmp_path / "vae").mkdir()
    save(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", exported)
    assert same(smalti.load(tmp_path / "vae"), model)


def test_several_files_in_a_folder_must_be_told_apart(state: State, tmp_path: Path) -> None:
    save(tmp_path / "a.ckpt", state)
    save(tmp_path / "b.ckpt", state)
    assert "a.ckpt, b.ckpt" in refusal(tmp_path)
    (tmp_path / "a.ckpt").unlink()
    assert import_checkpoint(tmp_path).checkpoint.path.name == "b.ckpt"


def test_the_autoencoder_of_a_pipeline_is_found(model: Autoencoder, tmp_path: Path) -> None:
    (tmp_path / "vae").mkdir()
    (tmp_path / "model_index.json").write_text("{}")
    save(tmp_path / "vae" / "diffusion_pytorch_model.bin", export_state(model, format_named("diffusers")).state)
    assert same(smalti.load(tmp_path), model)


def test_a_configuration_that_contradicts_the_weights_is_an_error(model: Autoencoder, tmp_path: Path) -> None:
    save(tmp_path / "diffusion_pytorch_model.safetensors", export_state(model, format_named("diffusers")).state)
    (tmp_path / "config.json").write_text('{"down_block_types": [], "block_out_channels": [64, 64]}')
    assert "block_out_channels=[64, 64], the tensors say [32, 64]" in str(_error(tmp_path))
    (tmp_path / "config.json").write_text("{")
    assert "damaged" in str(_error(tmp_path))


def _error(path: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        import_checkpoint(path)
    return caught.value


def test_dropout_and_scale_come_from_a_yaml_beside_the_file(tmp_path: Path) -> None:
    save(tmp_path / "model.ckpt", {}, state_dict=export_state(tiny_kl(), format_named("ldm")).state)
    text = "model:\n  params:\n    scale_factor: 0.3\n    ddconfig: {dropout: 0.1, tanh_out: false}\n"
    (tmp_path / "config.yaml").write_text(text)
    found = import_checkpoint(tmp_path / "model.ckpt").model
    assert found.encoder._arguments["dropout"] == 0.1
    assert found.latents is not None
    assert found.latents.scale == (0.3,)
    (tmp_path / "config.yaml").write_text(text.replace("tanh_out: false", "tanh_out: true"))
    assert "tanh_out" in str(_error(tmp_path / "model.ckpt"))


# Families and keys.


@pytest.mark.parametrize("asked", ["llamagen", "fqgan", "diffusers"])
def test_another_family_than_asked_for_is_named(state: State, tmp_path: Path, asked: str) -> None:
    path = save(tmp_path / "vq.safetensors", state)
    assert "it looks like latent-diffusion" in refusal(path, format=asked)


def test_an_unknown_format_gets_the_nearest_name(state: State, tmp_path: Path) -> None:
    path = save(tmp_path / "vq.safetensors", state)
    with pytest.raises(UserError, match="did you mean 'llamagen'"):
        import_checkpoint(path, "llama-gen")


def test_all_keys_that_do_not_fit_are_listed_at_once(state: State, tmp_path: Path) -> None:
    state["encoder.mid.block_1.conv9.weight"] = state.pop("encoder.mid.block_1.conv1.weight")
    state["decoder.conv_in.weight"] = state["decoder.conv_in.weight"].transpose(0, 1)
    del state["decoder.up.1.block.0.norm1.bias"]
    message = refusal(save(tmp_path / "vq.ckpt", state))
    for line in (
        "unexpected encoder.mid.block_1.conv9.weight",
        "missing encoder.mid.block_1.conv1.weight",
        "missing decoder.up.1.block.0.norm1.bias",
        "decoder.conv_in.weight has shape (4, 64, 3, 3), expected (64, 4, 3, 3)",
    ):
        assert line in message
    assert len(message.splitlines()) == 5


@pytest.mark.parametrize("format", ["taming", pytest.param("diffusers", marks=pytest.mark.slow)])
def test_every_second_key_that_is_renamed_and_every_other_that_is_turned_is_found(
    model: Autoencoder, tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = export_state(model, format_named(format)).state
    path = save(tmp_path / "vq.pt", good)
    current = dict(good)
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: dict(current))
    for number, (key, value) in enumerate(good.items()):
        if number % 2:  # the other half is turned
            if value.ndim > 1 and value.shape[0] != value.shape[1]:
                current.clear()
                current.update(good | {key: value.transpose(0, 1)})
                assert f"{key} has shape" in refusal(path), key
            continue
        current.clear()
        current.update({other: item for other, item in good.items() if other != key} | {f"{key}_": value})
        message = refusal(path)
        assert f"missing {key}" in message or "no known format" in message, key


# Numbers.


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["vq.safetensors", "vq.ckpt"])
def test_half_precision_is_widened_exactly(state: State, tmp_path: Path, dtype: torch.dtype, name: str) -> None:
    halved = {key: value.to(dtype) for key, value in state.items()}
    found = import_checkpoint(save(tmp_path / name, halved)).model
    assert all(parameter.dtype == torch.float32 for parameter in found.parameters())
    again = export_state(found, format_named("taming")).state
    assert all(torch.equal(again[key], value.float()) for key, value in halved.items())


# Containers.


@pytest.mark.parametrize("prefix", ["first_stage_model.", "vae.", "module."])
def test_the_autoencoder_behind_a_prefix_is_found(
    model: Autoencoder, state: State, tmp_path: Path, prefix: str
) -> None:
    whole = {f"{prefix}{key}": value for key, value in state.items()}
    whole["model.diffusion_model.out.0.weight"] = torch.zeros(3)
    found = import_checkpoint(save(tmp_path / "sd.safetensors", whole))
    assert same(found.model, model)
    assert found.dropped == {f"outside '{prefix}': another network of the file": ["model.diffusion_model.out.0.weight"]}


@pytest.mark.parametrize("name", ["model_state_dict", "params", "generator", "vae"])
def test_a_state_dict_is_found_under_any_name(model: Autoencoder, state: State, tmp_path: Path, name: str) -> None:
    found = import_checkpoint(save(tmp_path / "wrapped.pt", {}, **{name: {"state_dict": state}, "epoch": 3}))
    assert same(found.model, model)
    assert (found.checkpoint.weights, found.dropped) == ("raw", {"state of the training": ["epoch"]})


def test_words_of_wrappers_are_taken_out_of_names(model: Autoencoder, state: State, tmp_path: Path) -> None:
    compiled = {key.replace("encoder.", "encoder._orig_mod."): value for key, value in state.items()}
    wrapped = {f"module.{key}": value for key, value in compiled.items()}
    assert same(import_checkpoint(save(tmp_path / "compiled.safetensors", wrapped)).model, model)


@pytest.mark.parametrize("name", ["state_dict_ema", "model_ema", "params_ema", "ema_state_dict", "averaged"])
def test_averages_are_found_under_any_name(model: Autoencoder, state: State, tmp_path: Path, name: str) -> None:
    averaged = {key: value + 1 for key, value in state.items()}
    path = save(tmp_path / "averaged.pt", {}, **{"state_dict": state, name: averaged})
    found = import_checkpoint(path)
    assert (found.checkpoint.weights, found.dropped) == ("ema", {"the other weights (--weights)": ["state_dict"]})
    assert not same(found.model, model)
    assert same(import_checkpoint(path, options=ImportOptions(weights="raw")).model, model)


@pytest.mark.parametrize("name", ["both.pt", "both.safetensors"])
def test_averages_are_found_beside_what_they_average(
    model: Autoencoder, state: State, tmp_path: Path, name: str
) -> None:
    both = {
        f"{place}.{key}": value + add
        for place, add in (("online_model", 0), ("ema_model", 1))
        for key, value in state.items()
    }
    path = save(tmp_path / name, {**both, "step": torch.tensor(4.0)})
    found = import_checkpoint(path)
    assert found.checkpoint.weights == "ema"
    assert torch.equal(found.model.encoder.conv_in.weight, model.encoder.conv_in.weight + 1)
    assert same(import_checkpoint(path, options=ImportOptions(weights="raw")).model, model)


def test_of_several_models_none_is_guessed(state: State, tmp_path: Path) -> None:
    path = save(tmp_path / "two.pt", {}, student=state, teacher=state)
    assert "holds several models: student, teacher" in refusal(path)
    path = save(
        tmp_path / "two.safetensors", {f"{place}.{key}": value for place in "ab" for key, value in state.items()}
    )
    assert "holds several autoencoders: a., b." in refusal(path)


def test_options_of_a_trainer_and_averaged_weights(model: Autoencoder, tmp_path: Path) -> None:
    state = export_state(model, format_named("diffusers")).state
    averaged = {key: value + 1 for key, value in state.items()}
    container = {
        "model": state,
        "ema": averaged,
        "optimizer": {"state": {}},
        "steps": 5,
        "args": argparse.Namespace(lr=1e-4),
    }
    path = save(tmp_path / "0000005.pt", {}, **container)
    found = import_checkpoint(path)
    assert found.checkpoint.weights == "ema"
    assert same(import_checkpoint(path, options=ImportOptions(weights="raw")).model, model)
    assert not same(found.model, model)
    assert found.dropped["state of the training"] == ["optimizer", "steps", "args"]
    del container["ema"]
    assert "no averaged weights" in refusal(save(path, {}, **container), options=ImportOptions(weights="ema"))


def test_averaged_weights_of_latent_diffusion(model: Autoencoder, state: State, tmp_path: Path) -> None:
    whole = {key: value - 1 for key, value in state.items()}
    whole |= {f"model_ema.{key.replace('.', '')}": value for key, value in state.items()}
    whole |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}
    path = save(tmp_path / "vq.ckpt", {}, state_dict=whole)
    found = import_checkpoint(path)
    assert same(found.model, model)
    assert found.checkpoint.weights == "ema"
    assert not same(import_checkpoint(path, options=ImportOptions(weights="raw")).model, model)
    whole["model_ema.odd"] = torch.zeros(1)
    assert "belong to no single weight: model_ema.odd" in refusal(save(path, {}, state_dict=whole))


def test_a_lightning_checkpoint_with_callbacks_runs_nothing_of_lightning(
    model: Autoencoder, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["pytorch_lightning", "pytorch_lightning.callbacks", "pytorch_lightning.callbacks.model_checkpoint"]
    for name in names:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    callback = type("ModelCheckpoint", (), {"__module__": names[-1]})
    sys.modules[names[-1]].ModelCheckpoint = callback  # type: ignore[attr-defined]
    container = {
        "state_dict": OrderedDict(state),
        "callbacks": {callback: {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [{}],
        "global_step": 5,
    }
    path = save(tmp_path / "last.ckpt", {}, **container)
    for name in names:
        monkeypatch.delitem(sys.modules, name)
    assert same(smalti.load(path), model)
    assert not any(name in sys.modules for name in names)


@pytest.mark.parametrize("kept", [np.float64(0.3), np.ones(3)])
def test_numbers_of_numpy_beside_the_weights_do_not_matter(
    model: Autoencoder, state: State, tmp_path: Path, kept: Any
) -> None:
    path = save(tmp_path / "last.ckpt", {}, state_dict=state, callbacks={"best_model_score": kept})
    found = import_checkpoint(path)
    assert same(found.model, model)
    assert found.dropped["state of the training"] == ["callbacks"]


def test_a_class_of_another_program_is_refused_by_name(state: State, tmp_path: Path) -> None:
    path = save(tmp_path / "vq.ckpt", {}, state_dict=state, when=datetime.timedelta(1))
    assert "refused, it asks for datetime.timedelta, which could run code" in refusal(path)


class Malicious:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused(state: State, tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "vq.ckpt"
    trace = tmp_path / "trace"
    torch.save({"state_dict": state, "hook": Malicious(f"touch {trace}")}, path, _use_new_zipfile_serialization=zipped)
    message = refusal(path)
    assert "system" in message
    assert "could run code" in message
    assert not trace.exists()


def test_a_plain_pickle_is_refused(tmp_path: Path) -> None:
    path, trace = tmp_path / "vq.bin", tmp_path / "trace"
    path.write_bytes(pickle.dumps({"a": Malicious(f"touch {trace}")}))
    refusal(path)
    assert not trace.exists()


def test_a_file_that_holds_no_tensors_says_what_it_holds(tmp_path: Path) -> None:
    assert "holds no state dict; its entries are epoch" in refusal(save(tmp_path / "a.pt", {}, epoch=5))
    path = tmp_path / "b.pt"
    torch.save([1, 2], path)
    assert "holds a list" in refusal(path)


# Nothing is written unless it was verified.


def test_nothing_is_written_if_the_conversion_cannot_be_verified(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "vq.ckpt", state)
    monkeypatch.setattr(
        "smalti.interop.converting.compare", lambda *_: (_ for _ in ()).throw(UserError("not verified"))
    )
    with pytest.raises(UserError, match="not verified"):
        convert(path, tmp_path / "ours")
    assert [entry.name for entry in tmp_path.iterdir()] == ["vq.ckpt"]


def test_what_a_format_cannot_hold_is_refused_with_all_reasons(tmp_path: Path, model: Autoencoder) -> None:
    model.save_pretrained(tmp_path / "ours")
    with pytest.raises(UserError) as caught:
        convert(tmp_path / "ours", tmp_path / "vq.pt", target_format="llamagen")
    assert "1 blocks per level, expected 2" in str(caught.value)
    assert "unit vectors" in str(caught.value)
    assert not (tmp_path / "vq.pt").exists()
    with pytest.raises(UserError, match=r"ends in \.ckpt, \.pt, \.safetensors"):
        convert(tmp_path / "ours", tmp_path / "folder", target_format="taming")
