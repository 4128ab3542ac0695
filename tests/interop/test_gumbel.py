"""taming's Gumbel VQGAN: the layout of vqgan_gumbel_f8, its codes, and the numbers of its quantizer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import smalti
from smalti.bottlenecks.tokens import Branch, Tokens
from smalti.config import build
from smalti.interop import ImportOptions
from smalti.interop._containers import Checkpoint
from smalti.interop._recognise import format_named
from smalti.interop.conversion import config_from, export_state, import_checkpoint
from smalti.interop.converting import convert
from smalti.losses.categorical_kl import categorical_kl
from smalti.models.autoencoder import Autoencoder
from smalti.nn.meta import on_meta_device
from smalti.quantizers.gumbel import Anneal, Gumbel
from smalti.registry import UserError
from tests.interop.checkpoints import autoencoder, manifests, save, shaken, zoo_model


def tiny() -> Autoencoder:
    """Two levels of 32 channels, 6 codes of 4 that are drawn."""
    branch = Branch(quantizer=Gumbel(size=6, channels=4))
    bottleneck = Tokens(in_channels=4, codebooks={"codebook": branch})
    return shaken(autoencoder(bottleneck, multipliers=[1, 2], attention=[1], z_channels=4, channels=32, blocks=1))


def test_keys_and_shapes_are_the_published_ones() -> None:
    """The backbone is that of taming's other models; the quantizer has 8192 codes of 256."""
    drawn = {f"quantize.{key}": value for key, value in manifests()["taming_gumbel_quantize_256_256_8192"].items()}
    expected = {key: shape for key, (shape, _) in (manifests()["taming_vqgan_imagenet_f16_1024"] | drawn).items()}
    del expected["quantize.embedding.weight"]
    with on_meta_device():
        state = {key: torch.empty(shape) for key, shape in expected.items()}
        kind = format_named("taming")
        table = kind.table(kind.layout(state.keys()))
        config = config_from(Checkpoint(Path("gumbel.ckpt"), state), kind, table, ImportOptions())
        model = build(config, Autoencoder)
    assert model.codebook_sizes == {"codebook": 8192}
    assert "categorical_kl" in kind.notes(config)[0]
    exported = export_state(model, kind).state
    assert {key: list(value.shape) for key, value in exported.items()} == expected


@torch.no_grad()
def test_the_code_of_the_largest_logit_is_decoded(tmp_path: Path) -> None:
    model = tiny()
    state = export_state(model, format_named("taming")).state
    assert state["quantize.proj.weight"].shape == (6, 4, 1, 1)
    done = convert(save(tmp_path / "vqgan.ckpt", {}, state_dict=state), tmp_path / "ours")
    assert not done.dropped
    again = smalti.load(tmp_path / "ours")
    images = torch.rand(2, 3, 8, 8) * 2 - 1
    output = again.encode(images)
    z = output.codebooks["codebook"].z
    expected = F.conv2d(z, state["quantize.proj.weight"], state["quantize.proj.bias"]).argmax(dim=1)
    assert torch.equal(output.indices[:, 0], expected)
    assert torch.equal(output.latent, state["quantize.embed.weight"][expected].permute(0, 3, 1, 2))
    assert torch.equal(again.decode(output.latent), model.decode_indices(output.indices))


def test_other_formats_and_damaged_files_say_what_they_miss(tmp_path: Path) -> None:
    model = tiny()
    with pytest.raises(UserError, match=r"'gumbel': expected 'nearest'$"):
        export_state(model, format_named("diffusers"))
    state = export_state(model, format_named("taming")).state
    with pytest.raises(UserError, match="not IBQ"):
        import_checkpoint(save(tmp_path / "x.pt", state), "ibq")
    del state["quantize.proj.bias"]
    with pytest.raises(UserError, match=r"missing quantize\.proj\.bias"):
        import_checkpoint(save(tmp_path / "x.pt", state))
    mixed = export_state(zoo_model("vq-f4", channels=32, blocks=1), format_named("taming")).state
    with pytest.raises(UserError, match=r"unexpected quantize\.embedding\.weight"):
        import_checkpoint(save(tmp_path / "x.pt", mixed | {"quantize.proj.bias": torch.zeros(8192)}))


@pytest.mark.parametrize("hard", [True, False])
def test_quantizer_equals_taming(golden: Any, hard: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded are codes of 5 channels and latents of 4, which here have a fifth that is 0."""
    data, case = golden("ldm/quantizers.safetensors"), f"gumbel_hard{hard}"
    made = Gumbel(size=10, channels=5, hard=hard, temperature=Anneal(start=0.9, end=0.9)).double()
    with torch.no_grad():
        made.weight.copy_(data["gumbel.embed.weight"])
        made.logits.weight.copy_(F.pad(data["gumbel.proj.weight"][:, :, 0, 0], (0, 1)))
        made.logits.bias.copy_(data["gumbel.proj.bias"])
    noise = data["gumbel.exponential_noise"].permute(0, 2, 3, 1).reshape(-1, 10)
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda self: self.copy_(noise))
    z = data["z"].clone().requires_grad_()
    record = made.train()(F.pad(z, (0, 0, 0, 0, 0, 1)))
    assert torch.equal(record.indices, data[f"{case}.idx"])
    close(record.latent, data[f"{case}.out"])
    loss = 5e-4 * categorical_kl(record)
    close(loss, data[f"{case}.loss"].squeeze())
    upstream = torch.linspace(-1, 1, record.latent.numel(), dtype=torch.float64).view_as(record.latent)
    ((record.latent * upstream).sum() + loss).backward()
    close(z.grad, data[f"{case}.grad_z"])
    close(made.weight.grad, data[f"{case}.grad_embed"])
    close(made.logits.weight.grad[:, :4], data[f"{case}.grad_proj"][:, :, 0, 0])


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)
