"""The textbook forms compute what ours do: a benchmark against something else would prove nothing."""

import json

import pytest
import torch

from smalti.bench.measure import textbook
from smalti.losses.codebook import CodebookLoss
from smalti.losses.commitment import CommitmentLoss
from smalti.losses.entropy import Entropy
from tests.cli.conftest import smalti_cli  # noqa: F401
from tests.models.generators import make
from tests.quantized import one_codebook, the_quantizer


@pytest.mark.parametrize("step", ["step", "cdist_step"])
@pytest.mark.parametrize("entropy", [False, True])
def test_textbook_quantizer_has_our_gradients(step, entropy):
    plain = textbook("textbook_quantizer")
    z, upstream = torch.randn(2, 12, 4, dtype=torch.float64)
    codebook = torch.randn(9, 4, dtype=torch.float64)
    leaves = z.clone().requires_grad_(), codebook.clone().requires_grad_()
    getattr(plain, step)(*leaves, upstream, entropy=entropy)
    part = one_codebook(4, 9, 4, projection=False, normalize=True).double()
    the_quantizer(part).weight.data.copy_(codebook)
    image = z.T.reshape(1, 4, 12, 1).clone().requires_grad_()
    output = part(image)
    total = (output.latent * upstream.T.reshape(1, 4, 12, 1)).sum() + CodebookLoss()(output.codebooks)
    total = total + 0.25 * CommitmentLoss()(output.codebooks)
    if entropy:
        total = total + 0.03 * Entropy()(output.codebooks).total
    total.backward()
    torch.testing.assert_close(image.grad.reshape(4, 12).T, leaves[0].grad)
    torch.testing.assert_close(the_quantizer(part).weight.grad, leaves[1].grad)


def test_bench_quantizer_gives_rows_for_programs(smalti_cli):  # noqa: F811
    arguments = ["--tokens", "64", "--codes", "256", "--repeats", "1", "--no-compiled", "--json"]
    result = smalti_cli("bench", "quantizer", *arguments)
    rows = json.loads(result.stdout)
    assert {(row["name"], row["against"]) for row in rows} >= {
        (name, against) for name in ("quantizer", "quantizer+entropy") for against in ("textbook", "cdist")
    }
    assert all(row.keys() == {"name", "against", "seconds", "ratio", "peak_mib", "saved_mib"} for row in rows)
    assert "one matrix product 64 x 256 x 8" in result.stderr


def test_unknown_device_is_an_error_of_the_user(smalti_cli):  # noqa: F811
    result = smalti_cli("bench", "quantizer", "--device", "nowhere")
    assert result.exit_code == 2
    assert "--device nowhere" in result.stderr


@pytest.mark.parametrize("kv_heads", [2, 1])
def test_textbook_sampler_draws_our_tokens(kv_heads):
    plain = textbook("textbook_sampling")
    model = make(3, kv_heads=kv_heads, class_position="zeroed").double().eval()
    classes = torch.tensor([0, 3, 1])
    found = model.sample(classes, guidance=2.0, temperature=0.0)
    assert torch.equal(found.flatten(2), plain.sample(model, classes, 2.0))
    assert found.unique().numel() > 2


def test_bench_sample_says_whether_tokens_are_equal(smalti_cli):  # noqa: F811
    arguments = ["--width", "64", "--depth", "1", "--codes", "16", "--side", "2", "--repeats", "1", "--json"]
    result = smalti_cli("bench", "sample", *arguments)
    rows = json.loads(result.stdout)
    assert {(row["name"], row["against"]) for row in rows} == {
        (name, against) for name in ("sample", "sample bfloat16") for against in ("textbook", "textbook bfloat16")
    }
    assert "tokens of the two in float32: equal" in result.stderr
    refused = smalti_cli("bench", "sample", "--width", "100")
    assert refused.exit_code == 2
    assert "--width 100: expected a multiple of 64" in refused.stderr
