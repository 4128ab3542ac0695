"""FQGAN's tokenizers with two and three codebooks: every output, loss and gradient, and the sizes of the full models.

The goldens are float32. The same passes in float64 differ from them by up to 3.3e-5 in images (values up to 3) and by
up to 9e-5 of a gradient's norm, 1.2e-4 of a single one, so that is what they can be held to.
"""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from smalti.assembly.assemble import build_model
from smalti.assembly.recipe import load_recipe
from smalti.losses.codebook import codebook_loss
from smalti.losses.commitment import commitment_loss
from smalti.losses.disentangle import Disentangle
from smalti.losses.entropy import entropy_terms
from smalti.models.autoencoder import Autoencoder
from smalti.outputs import AutoencoderOutput
from tests.parity.fqgan_keys import BRANCHES, HEADS, fqgan_state, tiny_tokenizer

GOLDEN = Path(__file__).parents[1] / "golden" / "fqgan"
CASES = {
    "tokenizer_dual_ds16": ("dual", (1, 1, 1, 1, 1)),
    "tokenizer_triple_ds8": ("triple", (1, 1, 1, 1)),
}
FEATURES = {"semantic": "feat_sem", "mid": "feat_mid", "high": "feat_high"}
# Recorded in float32 with an error of 1.16e-4 of its norm.
ROUNDED = {"bottleneck.branches.high.quantizer.weight"}
every_tokenizer = pytest.mark.parametrize("case", CASES)


@cache
def read(case: str) -> tuple[dict[str, Tensor], list[str]]:
    with safe_open(GOLDEN / f"{case}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["grad_norm_names"])


def make(case: str) -> Autoencoder:
    return tiny_tokenizer(read(case)[0], *CASES[case])


def suffixes(case: str) -> Mapping[str, str]:
    return {name: suffix for name, (_, suffix) in BRANCHES[CASES[case][0]].items()}


def close(actual: Tensor, expected: Tensor, atol: float = 2e-5, rtol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, atol=atol, rtol=rtol)


def same_gradient(actual: Tensor, expected: Tensor, bound: float = 1e-4) -> None:
    """Of a pass in float64, whose distance from the recorded float32 is the same on every CPU."""
    assert actual.dtype == torch.float64
    assert (actual - expected).norm() <= bound * expected.norm()


def terms(output: AutoencoderOutput) -> dict[str, dict[str, Tensor]]:
    """Codebook -> the three losses in the originals' units."""
    found = {}
    for name, record in output.bottleneck.codebooks.items():
        sample, average = entropy_terms(record)
        found[name] = {
            "vq": codebook_loss(record),
            "commit": 0.25 * commitment_loss(record),
            "entropy": 0.03 * (sample - average),
        }
    return found


@every_tokenizer
def test_training_pass_equals_the_original(case: str) -> None:
    tensors, _ = read(case)
    model = make(case).train()
    output = model.training_forward({"image": tensors["io.x"]})
    close(output.reconstruction, tensors["io.train.recon"])
    for name, suffix in suffixes(case).items():
        record, place = output.bottleneck.codebooks[name], f"io.train.quantize_{suffix}."
        assert torch.equal(record.indices.flatten(), tensors[f"{place}idx"])
        z = tensors[f"{place}z"]
        close(record.z, z / z.norm(dim=1, keepdim=True))
        close(record.latent, tensors[f"{place}zq"])
        for term, value in terms(output)[name].items():
            close(value, tensors[f"{place}{term}"], atol=1e-6)
    close(0.1 * Disentangle()(output.bottleneck.codebooks).total, tensors["io.train.disentangle"], atol=1e-6)
    for name, head in model.heads.items():
        expected = tensors[f"io.train.{FEATURES[name]}"]
        close(output.heads[name], expected[:, 0])
        close(head.tokens(output.bottleneck.codebooks[name].latent), expected)


@every_tokenizer
def test_gradients_equal_the_original(case: str) -> None:
    tensors, names = read(case)
    kind = CASES[case][0]
    model = make(case).train().double()
    images = tensors["io.x"].double().requires_grad_()
    output = model.training_forward({"image": images})
    losses = [value for of in terms(output).values() for value in of.values()]
    heads = [head.tokens(output.bottleneck.codebooks[name].latent) for name, head in model.heads.items()]
    probe = output.reconstruction.square().mean() + sum(losses) + sum(tokens.square().mean() for tokens in heads)
    probe = probe + 0.1 * Disentangle()(output.bottleneck.codebooks).total
    close(probe, tensors["io.train.probe_loss"].double(), rtol=1e-5)
    probe.backward()
    same_gradient(images.grad, tensors["io.train.grad_x"])
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    kept = {key.removeprefix("io.train.grad."): value for key, value in tensors.items() if ".train.grad." in key}
    assert kept
    for name, expected in fqgan_state(kept, kind).items():
        same_gradient(gradients[name], expected, 1.2e-4 if name in ROUNDED else 1e-4)
    # A head's position table is one tensor there and two here.
    norms = dict(zip(names, tensors["io.train.grad_norms"], strict=True))
    for original, expected in norms.items():
        ours = list(fqgan_state({original: torch.zeros(2, 1)}, kind))
        norm = torch.stack([gradients[name].norm() for name in ours]).norm()
        close(norm, expected.double(), atol=5e-4)
    named = {ours for original in norms for ours in fqgan_state({original: torch.zeros(2, 1)}, kind)}
    assert named == set(gradients)


@every_tokenizer
def test_evaluation_equals_the_original(case: str) -> None:
    tensors, _ = read(case)
    model = make(case).eval()
    with torch.no_grad():
        encoded = model.encode(tensors["io.x"])
        close(model(tensors["io.x"]).reconstruction, tensors["io.eval.recon"])
        for name, suffix in suffixes(case).items():
            record = encoded.codebooks[name]
            assert torch.equal(record.indices.flatten(), tensors[f"io.eval.encode.{suffix}.idx"])
            close(record.latent, tensors[f"io.eval.encode.{suffix}.quant"])
            close(model.decode_only(encoded.latent, name), tensors[f"io.eval.decode_only.{suffix}"], atol=4e-5)
        decoded = model.decode_indices(encoded.indices)
        close(decoded, tensors["io.eval.decode_code"])
        assert torch.equal(decoded, model.decode(encoded.latent)), "ours is bit-equal, the original's is not"


@pytest.mark.parametrize(
    ("recipe", "parameters", "without_heads"),
    [
        ("fqgan-dual-f16", 150_410_131, 111_294_355),
        ("fqgan-dual-f8", 150_209_427, 110_307_219),
        ("fqgan-triple-f16", 159_295_515, 131_657_883),
        ("fqgan-triple-f8", 159_586_331, 131_063_963),
        ("llamagen-f16", 71_883_403, 71_883_403),
        ("llamagen-f8", 70_109_835, 70_109_835),
    ],
)
def test_full_models_have_the_published_number_of_parameters(recipe: str, parameters: int, without_heads: int) -> None:
    with torch.device("meta"):
        model: Any = build_model(load_recipe(recipe))
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert sum(sizes.values()) == parameters
    assert sum(size for name, size in sizes.items() if not name.startswith("heads.")) == without_heads


def test_every_key_of_the_originals_has_its_place() -> None:
    for case, (kind, _) in CASES.items():
        state = {key: value for key, value in read(case)[0].items() if key.startswith("model.")}
        ours = fqgan_state({key.removeprefix("model."): value for key, value in state.items()}, kind)
        own = {key for key in make(case).state_dict() if ".window." not in key}
        assert set(ours) == own
        assert set(HEADS[kind]) == {key.split(".")[1] for key in own if key.startswith("heads.")}


def test_usage_counts_no_initial_zeros(golden: Callable[[str], Any]) -> None:
    """The original's ring of 65536 zeros counts code 0 as used; ours counts what was chosen."""
    for case in CASES:
        tensors = golden(f"fqgan/{case}.safetensors")
        model = make(case).train()
        seen: dict[str, Tensor] = {}
        for step, column in enumerate(("io.x", "io.x2"), start=1):
            output = model.training_forward({"image": tensors[column]})
            model.update([output])
            usage = model.bottleneck.usage()
            for name, suffix in suffixes(case).items():
                chosen = output.bottleneck.codebooks[name].indices.flatten()
                seen[name] = torch.cat([seen.get(name, chosen[:0]), chosen])
                assert usage[name]["usage"] == len(seen[name].unique()) / 64
                zero = 0 not in seen[name]
                expected = tensors[f"io.train.quantize_{suffix}.usage_step{step}"]
                close(usage[name]["usage"].float() + zero / 64, expected, atol=1e-6)
