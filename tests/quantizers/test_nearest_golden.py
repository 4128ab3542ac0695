"""Our vector quantizer gives the numbers of taming and FQGAN; where a golden records a defect, it differs."""

import pytest
import torch
from torch.nn import functional as F

from smalti.losses.codebook import codebook_loss
from smalti.losses.commitment import commitment_loss
from smalti.losses.entropy import Entropy
from smalti.quantizers.nearest import EMA
from tests.quantized import one_codebook, the_quantizer


def close(actual, expected, atol=1e-10):
    torch.testing.assert_close(actual, expected, atol=atol, rtol=1e-9 if atol < 1e-8 else 1e-5)


def quantizer(codebook, **options):
    size, channels = codebook.shape
    made = one_codebook(channels, size, channels, projection=False, **options)
    made = made.to(codebook.dtype)
    the_quantizer(made).replace(codebook)
    return made


# (weight of the commitment, weight of the codebook term): the original's default has its 0.25 on the wrong term.
TAMING = {"vq1": (1.0, 0.25), "vq2_legacy": (1.0, 0.25), "vq2_sane": (1.0, 0.25), "vq2_fixed": (0.25, 1.0)}


@pytest.mark.parametrize("case", TAMING)
def test_quantizer_equals_taming(golden, case):
    data = golden("ldm/quantizers.safetensors")
    made, z = quantizer(data["codebook"]), data["z"].clone().requires_grad_()
    output = made(z)
    record = output.codebooks["codebook"]
    close(output.latent, data[f"{case}.out"])
    assert torch.equal(record.indices.flatten(), data[f"{case}.idx"].flatten())
    commitment, codebook = TAMING[case]
    loss = commitment * commitment_loss(record) + codebook * codebook_loss(record)
    close(loss, data[f"{case}.loss"].squeeze())
    ((output.latent * data["upstream"]).sum() + loss).backward()
    close(z.grad, data[f"{case}.grad_z"])
    close(the_quantizer(made).weight.grad, data[f"{case}.grad_codebook"])


def test_perplexity_equals_taming(golden):
    data = golden("ldm/quantizers.safetensors")
    made = quantizer(data["codebook"])
    made.update([made(data["z"])])
    torch.testing.assert_close(
        made.usage()["codebook"]["perplexity"], data["vq1.perplexity"].squeeze(), rtol=1e-6, atol=0
    )


def test_moving_averages_compute_as_taming_but_start_correctly(golden):
    """With the original's start (0 observations, sums = codes) ours collapses as it does; our own start keeps codes."""
    data = golden("ldm/quantizers.safetensors")
    made = quantizer(data["codebook"], ema=EMA(decay=0.99, eps=1e-5))
    the_quantizer(made).ema_counts.zero_()
    the_quantizer(made).ema_sums.copy_(data["codebook"])
    for step, scale in ((0, 1.0), (1, 1.5)):
        z = (data["z"] * scale).requires_grad_()
        output = made(z)
        record, prefix = output.codebooks["codebook"], f"ema.step{step}"
        assert torch.equal(record.indices.flatten(), data[f"{prefix}.idx"])
        close(output.latent, data[f"{prefix}.out"])
        loss = 0.25 * commitment_loss(record)
        close(loss, data[f"{prefix}.loss"].squeeze(), atol=1e-5)
        ((output.latent * data["upstream"]).sum() + loss).backward()
        close(z.grad, data[f"{prefix}.grad_z"], atol=1e-5)
        made.update([output])
        close(the_quantizer(made).ema_counts, data[f"{prefix}.cluster_size"])
        close(the_quantizer(made).ema_sums, data[f"{prefix}.embed_avg"])
        torch.testing.assert_close(the_quantizer(made).weight.data, data[f"{prefix}.weight"], rtol=1e-9, atol=0.0)
    assert data["ema.step0.weight"].norm() > 1e3 * data["codebook"].norm()

    ours = quantizer(data["codebook"], ema=EMA())
    output = ours(data["z"])
    ours.update([output])
    record = output.codebooks["codebook"]
    unused = torch.ones(10, dtype=torch.bool)
    unused[record.indices.flatten()] = False
    # An unused code stays where it is, up to the smoothing; a used one moves towards the mean of its latents.
    torch.testing.assert_close(the_quantizer(ours).weight.data[unused], data["codebook"][unused], rtol=1e-4, atol=0.0)
    assert (the_quantizer(ours).weight.data - data["codebook"]).norm() < 0.2 * data["codebook"].norm()


@pytest.mark.parametrize("case", ["l2", "plain", "l2_noent"])
def test_quantizer_equals_fqgan(golden, case):
    data = {
        k.removeprefix(f"{case}."): v for k, v in golden("fqgan/quantizer.safetensors").items() if k.startswith(case)
    }
    ratio = 0.0 if case == "l2_noent" else 0.03
    made = quantizer(data["codebook"], normalize=case != "plain")
    z = data["z"].clone().requires_grad_()
    output = made(z)
    record = output.codebooks["codebook"]
    assert torch.equal(record.indices.flatten(), data["idx"])
    close(output.latent, data["zq"], atol=1e-6)
    terms = {
        "vq": codebook_loss(record),
        "commit": 0.25 * commitment_loss(record),
        "entropy": ratio * Entropy()(output.codebooks).total,
    }
    leaves = [z, the_quantizer(made).weight]
    for name, term in terms.items():
        torch.testing.assert_close(term.detach(), data[name], rtol=1e-5, atol=1e-6)
        if f"only_{name}.grad_z" not in data:
            continue
        gradients = torch.autograd.grad(term, leaves, retain_graph=True, allow_unused=True)
        for leaf, gradient, key in zip(leaves, gradients, ("grad_z", "grad_codebook"), strict=True):
            given = torch.zeros_like(leaf) if gradient is None else gradient
            torch.testing.assert_close(given, data[f"only_{name}.{key}"], rtol=1e-4, atol=3e-6)
    loss = (output.latent * data["w"]).sum() + sum(terms.values())
    torch.testing.assert_close(loss.detach(), data["loss"], rtol=1e-5, atol=1e-5)
    loss.backward()
    torch.testing.assert_close(z.grad, data["grad_z"], rtol=1e-4, atol=3e-6)
    torch.testing.assert_close(the_quantizer(made).weight.grad, data["grad_codebook"], rtol=1e-4, atol=3e-6)


@pytest.mark.parametrize("case", ["l2", "plain"])
def test_lookup_equals_fqgan(golden, case):
    data = {
        k.removeprefix(f"{case}."): v for k, v in golden("fqgan/quantizer.safetensors").items() if k.startswith(case)
    }
    made = quantizer(data["codebook"], normalize=case == "l2").eval()
    output = made(data["z"])
    close(output.latent, data["eval.zq"], atol=1e-6)
    codes = made.lookup(output.indices)
    close(codes, data["entry_cf"], atol=1e-6)
    close(codes.permute(0, 2, 3, 1), data["entry_cl"], atol=1e-6)
    close(codes.permute(0, 2, 3, 1).reshape(-1, 8), data["entry_flat"], atol=1e-6)


def test_usage_counts_no_initial_zeros_as_fqgan_does(golden):
    """The original's ring starts with 65536 zeros, so code 0 counts as used although no token chose it."""
    data = golden("fqgan/quantizer.safetensors")
    made = quantizer(data["l2.codebook"], normalize=True)
    made.update([made(data["l2.z"])])
    chosen = data["l2.idx"].unique()
    usage = made.usage()["codebook"]["usage"]
    assert usage == len(chosen) / 32
    assert data["l2.usage"].item() * 32 == pytest.approx(len(F.pad(chosen, (1, 0)).unique()))
