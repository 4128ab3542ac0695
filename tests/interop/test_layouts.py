"""Every published layout at its real size: nothing unexplained on the way in, bit-equal on the way out."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from smalti.config import build, config_of
from smalti.interop import Format, ImportOptions
from smalti.interop._backbone import layout_of_ours
from smalti.interop._containers import Checkpoint
from smalti.interop._recognise import format_named, recognise
from smalti.interop._table import to_ours, to_theirs
from smalti.interop.conversion import config_from, export_state, import_checkpoint
from smalti.models.autoencoder import Autoencoder
from smalti.nn.meta import on_meta_device
from smalti.registry import UserError, classes
from tests.interop.checkpoints import ZOO, filled, manifests, zoo_model

# Manifest -> format, and the keys that are dropped for a reason.
LAYOUTS = {
    "ldm_kl_f8": "latent-diffusion",
    "ldm_kl_f8_full_with_loss": "latent-diffusion",
    "ldm_kl_f16": "latent-diffusion",
    "ldm_kl_f16_full_with_loss": "latent-diffusion",
    "ldm_vq_f8": "latent-diffusion",
    "ldm_vq_f8_full_with_loss": "latent-diffusion",
    "taming_vqgan_imagenet_f16_1024": "latent-diffusion",
    "taming_vqgan_imagenet_f16_1024_full_with_loss": "latent-diffusion",
    "llamagen_VQ-16": "llamagen",
    "llamagen_VQ-8": "llamagen",
    "fqgan_dual_VQ-16": "fqgan",
    "fqgan_dual_VQ-8": "fqgan",
    "fqgan_triple_VQ-16": "fqgan",
    "fqgan_triple_VQ-8": "fqgan",
    "diffusers_autoencoderkl_sd": "diffusers",
    "diffusers_vqmodel_vq_f8": "diffusers",
}
DROPPED = re.compile(r"loss\.|.*codebook_used$")
PARAMETERS = {
    "ldm_kl_f8": 83_653_863,
    "ldm_vq_f8": 67_717_295,
    "taming_vqgan_imagenet_f16_1024": 72_141_699,
    "llamagen_VQ-16": 71_883_403,
    "llamagen_VQ-8": 70_109_835,
    "fqgan_dual_VQ-16": 150_410_131,
    "fqgan_dual_VQ-8": 150_209_427,
    "fqgan_triple_VQ-16": 159_295_515,
    "fqgan_triple_VQ-8": 159_586_331,
}
REFUSED = {
    "lpips_vgg": "LPIPS",
    "patchgan_ndf64_n3_batchnorm": "discriminator",
    "taming_gumbel_quantize_256_256_8192": "no known format",
}
RELATIVES = {
    "quantize.used": "remap",
    "encoder.mid.attn_1.to_qkv.weight": "linear attention",
}


@pytest.mark.parametrize(("name", "format"), LAYOUTS.items())
def test_a_layout_at_real_size_comes_in_whole_and_goes_out_bit_equal(
    name: str, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = filled(manifests()[name])
    tokenizer = {key: value for key, value in state.items() if not key.startswith("loss.discriminator.")}
    monkeypatch.setattr(
        "smalti.interop.conversion.read_checkpoint", lambda path, weights: Checkpoint(path, dict(tokenizer))
    )
    found = import_checkpoint(name)
    assert format_named(format).title == found.format.title
    dropped = {key for keys in found.dropped.values() for key in keys}
    assert dropped == {key for key in tokenizer if DROPPED.match(key)}
    exported = export_state(found.model, found.format).state
    assert exported.keys() == {key for key in tokenizer if not key.startswith("loss.")}
    for key, value in exported.items():
        if key.endswith("codebook_used"):
            assert not value.any()
        else:
            assert torch.equal(value, state[key])
    if name in PARAMETERS:
        assert sum(parameter.numel() for parameter in found.model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_what_is_no_tokenizer_of_ours_is_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        recognise(manifests()[name].keys(), "auto", Path(name))


@pytest.mark.parametrize(("key", "reason"), RELATIVES.items())
def test_relatives_of_taming_are_refused_with_the_reason(key: str, reason: str) -> None:
    keys = [*manifests()["taming_vqgan_imagenet_f16_1024"], key]
    with pytest.raises(UserError, match=reason):
        recognise(keys, "auto", Path("gumbel.ckpt"))


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("format", ["latent-diffusion", "diffusers"])
def test_the_whole_zoo_can_be_told_from_its_tensors(name: str, format: str) -> None:
    with on_meta_device():
        model = zoo_model(name)
    kind = format_named(format)
    state = export_state(model, kind).state
    table = kind.table(kind.layout(state.keys()))
    found = config_from(Checkpoint(Path(name), state), kind, table, ImportOptions())
    with on_meta_device():
        again = build(found, Autoencoder)
    assert again.factor == model.factor
    for part in ("encoder", "bottleneck", "decoder"):
        assert config_of(getattr(again, part)) == config_of(getattr(model, part))
    table = kind.table(kind.layout(state))
    assert not to_ours(state, table, model.state_dict()).problems


@pytest.mark.parametrize("name", ["kl-f8", "vq-f8"])
def test_keys_match_the_published_map_between_compvis_and_diffusers(name: str) -> None:
    theirs = {"kl-f8": ("ldm_kl_f8", "diffusers_autoencoderkl_sd"), "vq-f8": ("ldm_vq_f8", "diffusers_vqmodel_vq_f8")}
    with on_meta_device():
        model = zoo_model(name)
    for format, manifest in zip(("latent-diffusion", "diffusers"), theirs[name], strict=True):
        exported = to_theirs(model.state_dict(), format_named(format).table(layout_of_ours(model.state_dict()))).state
        assert {key: list(value.shape) for key, value in exported.items()} == {
            key: shape for key, (shape, _) in manifests()[manifest].items()
        }


@pytest.mark.parametrize("kind", [cls for found in classes(Format).values() for cls in found])
def test_every_table_reads_back_each_key_it_writes(kind: Any) -> None:
    format = kind()
    for name in LAYOUTS:
        keys = manifests()[name].keys()
        if not format.recognises(keys):
            continue
        table = format.table(format.layout(keys))
        for key in keys:
            if table.why_dropped(key) is None and not key.startswith("loss.discriminator."):
                names = [ours for ours, _ in table.ours(key)]
                assert names, f"unexplained {key}"
                for ours in names:
                    written = table.theirs(ours)
                    assert written is not None
                    assert written[0] == key
