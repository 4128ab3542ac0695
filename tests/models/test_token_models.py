"""What every generator of tokens keeps: order, conditions, counts, saving, compiling, what is refused."""

import copy
import math
import re

import pytest
import torch
from torch.nn import functional as F

from smalti.config import ConfigError, build, config_of
from smalti.models import Model
from smalti.models._saved import SavedModel
from smalti.models._token_model import TokenModel
from smalti.models.far import FAR
from smalti.models.gpt import GPT
from smalti.nn.meta import on_meta_device
from smalti.registry import UserError
from tests.contracts.examples import registered
from tests.models.generators import CAPTIONS, CLASSES, SHAPE, STILL, batch_of, make

KINDS = [0, 1, 2, 3]  # codebooks of a far; 0: gpt
every = pytest.mark.parametrize("codebooks", KINDS)
LARGE = {"num_classes": 1000}


def test_all_registered_generators_of_tokens_are_tested_here() -> None:
    assert {cls for cls in registered(Model) if issubclass(cls, TokenModel)} == {FAR, GPT}


@every
def test_scores_of_a_token_depend_on_those_before_it_alone(codebooks) -> None:
    model = make(codebooks).double().eval()
    batch = batch_of(model)
    before = model.training_forward(batch).logits
    for plane, name in enumerate(model.codebooks):
        changed = {**batch, "indices": batch["indices"].clone()}
        changed["indices"][:, plane, 0, 2] = (batch["indices"][:, plane, 0, 2] + 1) % model.codebooks[name]
        after = model.training_forward(changed).logits
        for other, scores in enumerate(after.values()):
            same = (scores == list(before.values())[other]).flatten(1, 2).all(dim=-1).all(dim=0)
            assert same[:2].all()  # positions before
            assert bool(same[2]) == (other <= plane)  # the codebook itself, and those before it
            assert not same[3:].any()


@every
def test_fresh_models_find_all_codes_equally_likely(codebooks) -> None:
    shared = {**SHAPE, "codebooks": dict.fromkeys(["a", "b", "c"][: max(codebooks, 1)], 8)}
    model = FAR(**shared, head_depth=1) if codebooks else GPT(**shared)
    output = model.training_forward(batch_of(model))
    for scores, plane in zip(output.logits.values(), output.indices.unbind(1), strict=True):
        loss = F.cross_entropy(scores.flatten(0, 2), plane.flatten())
        assert loss.item() == pytest.approx(math.log(8))
    spread = [float(p.detach().std()) for name, p in model.named_parameters() if p.ndim == 2 and "outputs" not in name]
    assert all(0.01 < value < 0.03 for value in spread)


@every
@pytest.mark.parametrize("condition", [{}, {"num_classes": 0}, CAPTIONS])
def test_gradient_reaches_every_parameter(codebooks, condition) -> None:
    model = make(codebooks, **condition)
    output = model.training_forward(batch_of(model))
    assert output.logits.keys() == model.codebooks.keys() == set(model.output_keys["logits"])
    assert all(scores.dtype == torch.float32 for scores in output.logits.values())
    sum(scores.square().sum() for scores in output.logits.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert model.last_layer.grad.abs().sum() > 0


@every
def test_classes_and_captions_matter(codebooks) -> None:
    for condition, column in (({}, "label"), (CAPTIONS, "text")):
        model = make(codebooks, **condition).double().eval()
        batch = batch_of(model)
        changed = {**batch, column: batch[column].roll(1, dims=0)}
        for one, two in zip(*(model.training_forward(b).logits.values() for b in (batch, changed)), strict=True):
            assert not torch.allclose(one, two)


def test_class_dropout_forgets_classes_in_training_alone() -> None:
    model = make(2, **{**STILL, "class_dropout": 0.999999}).double()
    batch = batch_of(model)
    forgotten = model.training_forward(batch).logits["second"]
    batch["label"] = torch.full((3,), CLASSES)  # the row of no class
    torch.testing.assert_close(model.training_forward(batch).logits["second"], forgotten)
    batch["label"] = torch.arange(3)
    assert not torch.allclose(model.eval().training_forward(batch).logits["second"], forgotten)


def test_what_is_padding_in_a_caption_does_not_matter() -> None:
    model = make(2, **CAPTIONS, **STILL).double()
    batch = batch_of(model) | {"text_mask": torch.tensor([[False, True, True]]).expand(3, 3)}
    before = model.training_forward(batch).logits
    batch["text"][:, 0] += 1.0
    after = model.training_forward(batch).logits
    assert all(torch.equal(one, two) for one, two in zip(before.values(), after.values(), strict=True))
    batch["text"][:, 1] += 1.0
    assert not torch.allclose(model.training_forward(batch).logits["first"], before["first"])


def test_the_class_has_no_place_unless_it_is_rotated() -> None:
    zeroed, rotated = (make(0, **STILL, class_position=position).double() for position in ("zeroed", "rotated"))
    batch = batch_of(zeroed)
    one, two = (model.training_forward(batch).logits["first"] for model in (zeroed, rotated))
    torch.testing.assert_close(one[:, 0, 0], two[:, 0, 0])  # the class sees itself alone
    assert not torch.allclose(one[:, 0, 1:], two[:, 0, 1:])


@every
def test_saved_and_loaded_it_says_the_same(codebooks, tmp_path) -> None:
    model = make(codebooks, kv_heads=1).eval()
    model.save_pretrained(tmp_path)
    loaded = SavedModel.from_pretrained(tmp_path)
    assert type(loaded) is type(model)
    assert config_of(build(config_of(model), Model)) == config_of(model) == config_of(loaded)
    batch = batch_of(model)
    for one, two in zip(*(m.training_forward(batch).logits.values() for m in (model, loaded)), strict=True):
        assert torch.equal(one, two)


def test_planes_of_a_residual_codebook_have_names_with_a_number() -> None:
    model = GPT(**{**SHAPE, "codebooks": {"vq.0": 7}})
    assert build(config_of(model), Model).codebooks == {"vq.0": 7}


@pytest.mark.parametrize(
    ("cls", "sizes", "count"),
    [
        (FAR, {"codebooks": {"a": 16384, "b": 16384}, **LARGE}, 417_104_896),
        (FAR, {"codebooks": {"a": 16384, "b": 16384, "c": 16384}, **LARGE}, 451_707_904),
        (
            FAR,
            {
                "codebooks": dict.fromkeys("ab", 16384),
                "width": 1280,
                "depth": 36,
                "heads": 20,
                "head_depth": 4,
                **LARGE,
            },
            901_195_520,
        ),
        (
            FAR,
            {
                "codebooks": dict.fromkeys("abc", 16384),
                "width": 1280,
                "depth": 36,
                "heads": 20,
                "head_depth": 4,
                **LARGE,
            },
            944_776_960,
        ),
        (GPT, {"codebooks": {"a": 16384}, **LARGE}, 110_888_448),
    ],
)
def test_sizes_are_the_published_ones(cls, sizes, count) -> None:
    with on_meta_device():
        model = cls(**sizes)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_without_memory_nothing_is_computed() -> None:
    """The largest has shapes and nothing else: its tables are made when they are asked for."""
    with on_meta_device():
        model = FAR(codebooks=dict.fromkeys("abc", 16384), width=1280, depth=36, heads=20, head_depth=4)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert not model._tables
    assert not list(model.buffers())


@every
def test_a_copy_is_another_model_and_tables_are_no_state(codebooks) -> None:
    model = make(codebooks, **STILL)
    batch = batch_of(model)
    expected = model.training_forward(batch).logits["first"].detach()  # makes the tables, which are no state
    twin = copy.deepcopy(model)
    assert twin.state_dict().keys() == model.state_dict().keys()
    with torch.no_grad():
        model.last_layer.add_(1.0)
        model.norm.weight.add_(1.0)
    assert torch.equal(twin.training_forward(batch).logits["first"], expected)


@pytest.mark.slow
@pytest.mark.parametrize("codebooks", [0, 3])
def test_compiled_it_says_the_same(codebooks) -> None:
    model = make(codebooks, **STILL, kv_heads=1).eval()
    batch = batch_of(model)
    condition = model.condition.check(batch["label"], 3)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for one, two in zip(
        model(batch["indices"], condition).logits.values(),
        compiled(batch["indices"], condition).logits.values(),
        strict=True,
    ):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (
            "indices",
            torch.zeros(3, 2, 3, 2, dtype=torch.int64),
            "indices have shape (3, 2, 3, 2): expected (B, G, h, w)",
        ),
        ("indices", torch.zeros(3, 1, 2, 3, dtype=torch.int64), "indices have shape (3, 1, 2, 3)"),
        ("indices", torch.zeros(3, 2, 2, 3), "indices are torch.float32: expected whole numbers"),
        ("indices", torch.full((3, 2, 2, 3), 5), "index 5 of the codebook 'second': expected 0 to 4"),
        ("indices", torch.full((3, 2, 2, 3), -1), "index -1 of the codebook 'first': expected 0 to 6"),
        ("label", torch.full((3,), CLASSES + 1), f"label {CLASSES + 1}: expected whole numbers"),
        ("label", torch.zeros(3), "labels are torch.float32"),
        ("label", torch.zeros(2, dtype=torch.int64), "classes have shape (2,): expected (3,)"),
        ("label", None, "classes are missing: this model has num_classes=4"),
    ],
)
def test_batches_that_do_not_fit_are_refused(column, value, message) -> None:
    model = make(2)
    with pytest.raises(UserError, match=re.escape(message)):
        model.training_forward({**batch_of(model), column: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codebooks": {}}, "expected at least one"),
        ({"heads": 3}, "heads=3: expected a divisor of the width 16"),
        ({"kv_heads": 3}, "kv_heads=3: expected a divisor of the heads 2"),
        ({"text_width": 4}, "text_length=0"),
        ({"text_width": 4, "text_length": 3}, "and no classes"),
        ({"class_position": "zero"}, "did you mean 'zeroed'"),
        ({"dropout": 1.0}, "dropout"),
        ({"grid": [16]}, "grid"),
        ({"codebooks": {"a": 4, "b": 4}, "type": "gpt"}, "'far' takes any number"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_when_the_recipe_is_read(options, message) -> None:
    config = {**config_of(make(2)), **options}
    if config["type"] == "gpt":
        del config["head_depth"]
    with pytest.raises(ConfigError, match=message):
        build(config, Model)


def test_the_head_has_places_for_more_codebooks_than_the_grid_has_cells() -> None:
    model = FAR(**{**SHAPE, "grid": (1, 1), "codebooks": dict.fromkeys("abcd", 4)}, head_depth=1)
    assert model.training_forward(batch_of(model)).logits["d"].shape == (3, 1, 1, 4)
