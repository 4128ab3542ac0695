"""FAR and LlamaGen's GPT with the originals' weights: scores, loss, gradients, and the tokens they draw.

FAR for three codebooks is not recorded: its formulas are in ``test_far_by_hand``, its keys in ``tests/interop``.
"""

import json

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F

from smalti.interop import ImportOptions
from smalti.interop.conversion import import_checkpoint
from smalti.interop.far import FAR
from smalti.models._token_model import TokenModel
from tests.conftest import GOLDEN
from tests.interop.checkpoints import save


@pytest.fixture(params=["far_dual", "gpt_llamagen"])
def recorded(request, golden, tmp_path) -> tuple[TokenModel, dict[str, Tensor], str]:
    """A model with the recorded weights, what was recorded, and its name."""
    tensors = golden(f"fqgan/{request.param}.safetensors")
    state = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
    found = import_checkpoint(save(tmp_path / "model.pt", {}, model=state), options=ImportOptions(heads=2, grid=4))
    assert not found.dropped
    assert isinstance(found.model, TokenModel)
    return found.model, tensors, request.param


def planes(tensors: dict[str, Tensor], name: str, model: TokenModel) -> Tensor:
    """What is recorded a codebook, or of the only one, with shape (B, G, ...)."""
    if len(model.codebooks) == 1:
        return tensors[name][:, None]
    return torch.stack([tensors[f"{name}{number + 1}"] for number in range(len(model.codebooks))], dim=1)


# In front of the number of a codebook.
NAMES = {
    "far_dual": {"idx": "io.idx_", "logits": "io.train.logits_", "greedy": "."},
    "gpt_llamagen": {"idx": "io.idx", "logits": "io.train.logits", "greedy": ""},
}


def test_scores_and_loss_are_the_originals(recorded) -> None:
    model, tensors, kind = recorded
    indices = planes(tensors, NAMES[kind]["idx"], model).unflatten(2, (4, 4))
    output = model.training_forward({"indices": indices, "label": tensors["io.cond"]})
    scores = torch.stack([value.flatten(1, 2) for value in output.logits.values()], dim=1)
    expected = planes(tensors, NAMES[kind]["logits"], model)
    torch.testing.assert_close(scores, expected, atol=2e-5, rtol=0.0)
    # All codebooks have 24 codes: the mean of their losses is the loss of all.
    loss = F.cross_entropy(scores.flatten(0, 2), indices.flatten())
    assert loss.item() == pytest.approx(tensors["io.train.loss"].item(), abs=1e-6)


def test_gradient_norms_are_the_originals(golden, tmp_path) -> None:
    path = GOLDEN / "fqgan/far_dual.safetensors"
    tensors = golden("fqgan/far_dual.safetensors")
    with safe_open(path, "pt") as file:
        order = json.loads(file.metadata()["grad_norm_names"])
    state = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
    model = import_checkpoint(save(tmp_path / "far.pt", state), options=ImportOptions(heads=2, grid=4)).model
    indices = planes(tensors, "io.idx_", model).unflatten(2, (4, 4))
    output = model.training_forward({"indices": indices, "label": tensors["io.cond"]})
    pairs = zip(output.logits.values(), indices.unbind(1), strict=True)
    (sum(F.cross_entropy(scores.flatten(0, 2), plane.flatten()) for scores, plane in pairs) / 2).backward()
    table = FAR().table(FAR().layout(()))
    found = {table.theirs(name)[0]: parameter.grad.norm() for name, parameter in model.named_parameters()}
    assert found.keys() == set(order)
    norms = torch.stack([found[name] for name in order])
    torch.testing.assert_close(norms, tensors["io.train.grad_norms"], atol=5e-4, rtol=0.0)


@pytest.mark.parametrize(("row", "options"), [("nocfg", {}), ("cfg2", {"guidance": 2.0})])
def test_best_tokens_are_the_originals(recorded, row, options) -> None:
    model, tensors, kind = recorded
    expected = planes(tensors, f"io.greedy.{row}{NAMES[kind]['greedy']}", model).long()
    found = model.sample(tensors["io.sample_cond"], temperature=0.0, **options)
    assert torch.equal(found.flatten(2), expected)
    again = model.sample(tensors["io.sample_cond"], top_k=1, seeds=[3, 4], **options)
    assert torch.equal(again.flatten(2), expected)


def test_best_tokens_with_an_interval_are_the_originals(golden, tmp_path) -> None:
    """The original drops guidance after the step 3, which it counts from the second token."""
    tensors = golden("fqgan/gpt_llamagen.safetensors")
    state = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
    model = import_checkpoint(save(tmp_path / "gpt.pt", state), options=ImportOptions(heads=2, grid=4)).model
    found = model.sample(tensors["io.sample_cond"], temperature=0.0, guidance=4.0, guidance_interval=(0, 4))
    assert torch.equal(found.flatten(2), planes(tensors, "io.greedy.cfg4_interval3", model).long())
