"""Our autoencoder gives the numbers of latent-diffusion, taming-transformers and LlamaGen."""

import json

import pytest
import torch
from safetensors import safe_open

from smalti.losses.codebook import codebook_loss
from smalti.losses.commitment import commitment_loss
from smalti.losses.kl import kl
from tests.conftest import GOLDEN
from tests.golden_keys import kl_tiny, llamagen_ds8, llamagen_key, vq_tiny


def close(actual, expected, atol=1e-9):
    torch.testing.assert_close(actual, expected, atol=atol, rtol=1e-9)


@pytest.fixture
def kl_io(golden):
    return golden("ldm/kl_tiny_io.safetensors")


def test_kl_autoencoder_equals_latent_diffusion(golden, kl_io):
    model = kl_tiny(golden("ldm/kl_tiny_state.safetensors"))
    features = model.encoder(kl_io["image"])
    close(features, kl_io["encoder_out"])
    close(model.bottleneck.projection(features), kl_io["moments"])
    output = model.training_forward({"image": kl_io["image"], "noise": kl_io["noise"]})
    posterior = output.bottleneck.posterior
    for name, value in (("mean", posterior.mean), ("logvar", posterior.logvar), ("mode", posterior.mode())):
        close(value, kl_io[name])
    close(output.bottleneck.latent, kl_io["sample"])
    close(posterior.kl(), kl_io["kl"])
    close(posterior.nll(output.bottleneck.latent), kl_io["nll_of_sample"])
    close(output.reconstruction, kl_io["recon_sample"])
    close(model.decode(posterior.mode()), kl_io["recon_mode"])
    close(kl(posterior, reduction="batch_sum"), kl_io["kl"].mean())


def test_vq_autoencoder_equals_taming(golden):
    model, io = vq_tiny(golden("ldm/vq_tiny_state.safetensors")), golden("ldm/vq_tiny_io.safetensors")
    output = model.training_forward({"image": io["image"]})
    record = output.bottleneck.codebooks["codebook"]
    assert torch.equal(record.indices, io["indices"])
    close(record.z, io["prequant"])
    close(output.bottleneck.latent, io["quant"])
    close(output.reconstruction, io["recon"])
    close(model.bottleneck.lookup(output.bottleneck.indices), io["codebook_entry"])
    # The original has 0.25 on the codebook term and 1 on the commitment.
    close(commitment_loss(record) + 0.25 * codebook_loss(record), io["emb_loss"].squeeze())


@pytest.fixture
def llamagen(golden):
    return golden("fqgan/tokenizer_llamagen_ds8.safetensors")


def test_tokenizer_equals_llamagen_in_training(llamagen):
    model = llamagen_ds8(llamagen)
    images = llamagen["io.x"].clone().requires_grad_()
    output = model.training_forward({"image": images})
    record = output.bottleneck.codebooks["codebook"]
    close(output.reconstruction, llamagen["io.train.recon"], atol=5e-5)
    codebook, commitment = codebook_loss(record), commitment_loss(record)
    close(codebook, llamagen["io.train.vq"], atol=1e-6)
    close(0.25 * commitment, llamagen["io.train.commit"], atol=1e-6)
    loss = output.reconstruction.square().mean() + codebook + 0.25 * commitment
    close(loss, llamagen["io.train.probe_loss"], atol=1e-5)
    loss.backward()
    torch.testing.assert_close(images.grad, llamagen["io.train.grad_x"], rtol=1e-3, atol=1e-6)
    with safe_open(GOLDEN / "fqgan/tokenizer_llamagen_ds8.safetensors", "pt") as file:
        names = json.loads(file.metadata()["grad_norm_names"])
    parameters = dict(model.named_parameters())
    ours = torch.stack([parameters[llamagen_key(name)].grad.norm() for name in names])
    assert len(names) == len(parameters)
    torch.testing.assert_close(ours, llamagen["io.train.grad_norms"], rtol=1e-3, atol=5e-4)


@torch.no_grad()
def test_tokenizer_equals_llamagen_in_evaluation(llamagen):
    model = llamagen_ds8(llamagen).eval()
    output = model.encode(llamagen["io.x"])
    assert torch.equal(output.indices.flatten(), llamagen["io.eval.idx"])
    close(output.latent, llamagen["io.eval.quant"], atol=2e-6)
    close(model.decode(output.latent), llamagen["io.eval.recon"], atol=5e-5)
    close(model.decode_indices(output.indices), llamagen["io.eval.decode_code"], atol=2e-5)


@torch.no_grad()
def test_tokenizer_equals_llamagen_on_a_wide_image(llamagen):
    model = llamagen_ds8(llamagen).eval()
    indices = model.encode(llamagen["io.rect.x"]).indices
    assert indices.shape == (1, 1, 8, 12)
    assert torch.equal(indices.flatten(), llamagen["io.rect.idx"])
    close(model.decode_indices(indices), llamagen["io.rect.decode_code"], atol=2e-5)
