"""Numbers of fewer bits and of other kinds: read exactly, times their scale, or refused by key and dtype."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import smalti
from smalti.interop._recognise import format_named
from smalti.interop.conversion import export_state, import_checkpoint
from smalti.interop.converting import convert
from smalti.registry import UserError
from tests.interop.checkpoints import save, tiny_kl

State = dict[str, Tensor]
KEY, LAYER = "decoder.mid_block.resnets.0.conv1.weight", "decoder.mid_block.resnets.0.conv1"
E4M3 = torch.float8_e4m3fn
FLOAT8 = [E4M3, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz]


@pytest.fixture
def state() -> State:
    """A state dict in the layout of diffusers."""
    return export_state(tiny_kl(), format_named("diffusers")).state


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        import_checkpoint(path)
    assert path.name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dtype", FLOAT8)
@pytest.mark.parametrize("name", ["vae.safetensors", "vae.ckpt"])
def test_float8_is_read_as_it_was_rounded_and_told(
    state: State, tmp_path: Path, dtype: torch.dtype, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    rounded = {key: value.to(dtype) if value.ndim > 1 else value for key, value in state.items()}
    found = import_checkpoint(save(tmp_path / name, rounded))
    again = export_state(found.model, format_named("diffusers")).state
    assert all(torch.equal(again[key], value.float()) for key, value in rounded.items())
    assert all(value.dtype == torch.float32 for value in found.model.state_dict().values())
    count = sum(value.ndim > 1 for value in state.values())
    kind = str(dtype).removeprefix("torch.")
    note = f"{count} tensors of the file had been rounded to 8 bits ({kind}) and are read into float32"
    assert found.notes == (note,)
    smalti.load(tmp_path / name)
    assert note in caplog.text


def test_a_conversion_tells_of_float8(state: State, tmp_path: Path) -> None:
    path = save(tmp_path / "vae.safetensors", state | {KEY: state[KEY].to(E4M3)})
    done = convert(path, tmp_path / "ours")
    assert any("1 tensors of the file had been rounded to 8 bits (float8_e4m3fn)" in note for note in done.notes)


@pytest.mark.parametrize("name", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("marker", [True, False])
@pytest.mark.parametrize("shape", [(), (1,), (64,), (64, 1), (64, 1, 1, 1)])
def test_scaled_float8_is_multiplied_by_its_scale(
    state: State, tmp_path: Path, name: str, marker: bool, shape: tuple[int, ...]
) -> None:
    scale = torch.rand(shape) + 0.5
    narrow = state[KEY].to(E4M3)
    whole = state | {KEY: narrow, f"{LAYER}.{name}": scale, f"{LAYER}.scale_input": torch.ones(())}
    if marker:
        whole["scaled_fp8"] = torch.zeros(2, dtype=E4M3)
    found = import_checkpoint(save(tmp_path / "vae.safetensors", whole))
    expected = narrow.float() * scale.reshape(-1, 1, 1, 1)
    assert torch.equal(export_state(found.model, format_named("diffusers")).state[KEY], expected)
    assert "1 of them times their scale" in found.notes[0]
    gone = [key for keys in found.dropped.values() for key in keys]
    assert sorted(gone) == sorted(whole.keys() - state.keys())


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ({f"{LAYER}.weight_scale": torch.ones(1, 64)}, f"{LAYER}.weight_scale, the scale of {KEY}"),
        ({f"{LAYER}.weight_scale": torch.ones(2, 2)}, "of shape (2, 2): expected one number, or 64"),
        ({f"{LAYER}.weight_scale": torch.ones(64, dtype=torch.int32)}, "is int32"),
        ({f"{LAYER}.weight_scale": torch.tensor(float("nan"))}, "is not finite"),
        ({f"{LAYER}.weight_scale": torch.tensor(0.0)}, "or not positive"),
        ({f"{LAYER}.weight_scale": torch.tensor(-1.0)}, "or not positive"),
        ({f"{LAYER}.weight_scale_inv": torch.ones(())}, f"{KEY} is float8_e4m3fn with {LAYER}.weight_scale_inv"),
        ({f"{LAYER}.weight_zero_point": torch.ones(())}, f"with {LAYER}.weight_zero_point"),
        ({f"{LAYER}.weight_scale": torch.ones(()), f"{LAYER}.scale_weight": torch.ones(())}, "read is one scale"),
        ({"scaled_fp8": torch.zeros(2, dtype=E4M3)}, f"{KEY} is float8_e4m3fn in a file of scaled weights"),
    ],
)
def test_other_scales_are_refused_by_name(state: State, tmp_path: Path, beside: State, message: str) -> None:
    assert message in refusal(save(tmp_path / "vae.pt", state | {KEY: state[KEY].to(E4M3)} | beside))


@pytest.mark.parametrize(
    ("marker", "counts"),
    [
        ("scaled_fp8", True),
        ("first_stage_model.scaled_fp8", True),
        ("model.diffusion_model.scaled_fp8", False),
    ],
)
def test_a_marker_speaks_of_all_below_its_place(state: State, tmp_path: Path, marker: str, counts: bool) -> None:
    whole = {f"first_stage_model.{key}": value for key, value in (state | {KEY: state[KEY].to(E4M3)}).items()}
    path = save(tmp_path / "sd.safetensors", whole | {marker: torch.zeros(2)})
    if counts:
        assert f"{KEY} is float8_e4m3fn in a file of scaled weights, and has no scale" in refusal(path)
    else:
        read = import_checkpoint(path)
        assert torch.equal(export_state(read.model, read.format).state[KEY], state[KEY].to(E4M3).float())


@pytest.mark.parametrize("said", ['{"format": "nvfp4"}', '{"format": "float8_e5m2"}', "[]", "{", ""])
def test_a_layer_that_says_another_type_than_it_has_is_refused(state: State, tmp_path: Path, said: str) -> None:
    whole = state | {KEY: state[KEY].to(E4M3), f"{LAYER}.weight_scale": torch.tensor(0.5)}

    def written(text: str) -> Path:
        marker = torch.tensor(list(text.encode()), dtype=torch.uint8)
        return save(tmp_path / "vae.safetensors", whole | {f"{LAYER}.comfy_quant": marker})

    read = import_checkpoint(written('{"format": "float8_e4m3fn"}'))
    assert torch.equal(export_state(read.model, read.format).state[KEY], whole[KEY].float() * 0.5)
    assert f"{LAYER}.comfy_quant says" in refusal(written(said))


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.uint8, torch.int64, torch.uint16, torch.bool, torch.complex64, torch.float8_e8m0fnu]
)
@pytest.mark.parametrize("name", ["vae.safetensors", "vae.ckpt"])
def test_weights_that_are_no_floats_are_refused_by_key_and_dtype(
    state: State, tmp_path: Path, dtype: torch.dtype, name: str
) -> None:
    message = refusal(save(tmp_path / name, state | {KEY: state[KEY].to(dtype)}))
    assert f"{KEY} is {str(dtype).removeprefix('torch.')}: weights are read in float64" in message


def test_weights_of_odd_layouts_are_refused_by_key(state: State, tmp_path: Path) -> None:
    for value, what in (
        (state[KEY].flatten(1).to_sparse(), "float32 in the layout sparse_coo"),
        (torch.empty(64, 64, 3, 3, device="meta"), "a tensor without numbers"),
        (torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2), "float4_e2m1fn_x2"),
    ):
        assert f"{KEY} is {what}" in refusal(save(tmp_path / "vae.pt", state | {KEY: value}))


def test_packed_weights_of_four_bits_are_refused_before_their_shapes_are_looked_at(
    state: State, tmp_path: Path
) -> None:
    packed = {key: torch.zeros(value.numel(), 1, dtype=torch.uint8) for key, value in state.items()}
    message = refusal(save(tmp_path / "vae.pt", packed))
    assert "encoder.conv_in.weight is uint8" in message
    assert f"and {len(state) - 8} more" in message


def _raw(path: Path, dtype: str, size: int) -> Path:
    header = json.dumps({KEY: {"dtype": dtype, "shape": [4], "data_offsets": [0, size]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))
    return path


@pytest.mark.parametrize(("dtype", "size"), [("F6_E2M3", 3), ("C128", 64), ("F4_NEW", 2)])
def test_a_dtype_that_torch_has_not_is_named(tmp_path: Path, dtype: str, size: int) -> None:
    assert f"the dtype {dtype}, which is not read" in refusal(_raw(tmp_path / "vae.safetensors", dtype, size))


def test_two_precisions_become_the_wider_one(state: State, tmp_path: Path) -> None:
    mixed: dict[str, Any] = state | {KEY: state[KEY].double() + 1e-12}
    read = import_checkpoint(save(tmp_path / "vae.safetensors", mixed))
    assert read.notes == (f"1 tensors of the file are float64, as {KEY}: the others are widened to it, exactly",)
    found = read.model
    assert all(value.dtype == torch.float64 for value in found.state_dict().values())
    again = export_state(found, format_named("diffusers")).state
    assert all(torch.equal(again[key], value.double()) for key, value in mixed.items())
    assert convert(tmp_path / "vae.safetensors", tmp_path / "ours").tensors == len(state)
