"""Sampling: cached as uncached, the same picture whatever is drawn beside it, guidance, and what is refused."""

import re

import pytest
import torch
from torch.nn import functional as F

from smalti.models._sampling import SamplingOptions
from smalti.models._token_model import TokenModel
from smalti.nn.sampling import draw, filtered, uniforms
from smalti.registry import UserError
from tests.models.generators import CAPTIONS, CLASSES, batch_of, make

every = pytest.mark.parametrize("codebooks", [0, 1, 2, 3])
LABELS = torch.tensor([0, 3, 1])


def uncached(model: TokenModel, labels, scales, seeds, interval=(0, 99), **filters) -> torch.Tensor:
    """The definition: the whole sequence again for every token, both halves apart, scores mixed in full."""
    count, planes = model.positions, len(model.codebooks)
    tokens = torch.zeros(len(labels), planes, count, dtype=torch.int64)
    numbers = uniforms(seeds, count, planes, torch.device("cpu"))
    model = model.eval()
    for position in range(count):
        for plane, name in enumerate(model.codebooks):
            batch = {"indices": tokens.unflatten(2, model.grid)}
            told, nothing = (
                model.training_forward({**batch, "label": label}).logits[name].flatten(1, 2)[:, position]
                for label in (labels, torch.full_like(labels, model.num_classes))
            )
            scale = scales[name] if interval[0] <= position <= interval[1] else 1.0
            scores = filtered(nothing + (told - nothing) * scale, **filters)
            tokens[:, plane, position] = draw(scores, numbers[:, position, plane])
    return tokens.unflatten(2, model.grid)


@every
@pytest.mark.parametrize("scale", [1.0, 2.5])
@torch.no_grad()
def test_cached_is_uncached(codebooks, scale) -> None:
    model = make(codebooks, kv_heads=1).double()
    scales = dict.fromkeys(model.codebooks, scale)
    seeds = [5, 6, 7]
    expected = uncached(model, LABELS, scales, seeds)
    assert torch.equal(model.sample(LABELS, guidance=scale, seeds=seeds), expected)
    assert expected.unique().numel() > 2


@torch.no_grad()
def test_scales_may_be_mixed_and_guidance_may_end() -> None:
    model = make(3).double()
    scales = {"first": 3.0, "second": 1.0, "third": 0.5}
    for interval in ((0, 99), (2, 3)):
        expected = uncached(model, LABELS, scales, [1, 2, 3], interval, top_k=4, top_p=0.9)
        given = {"guidance": {"first": 3.0, "third": 0.5}, "guidance_interval": interval}
        assert torch.equal(model.sample(LABELS, seeds=[1, 2, 3], top_k=4, top_p=0.9, **given), expected)


@every
def test_an_image_is_the_same_whatever_is_drawn_beside_it(codebooks) -> None:
    """In float64 bit by bit; in float32 another batch may round another way, and a token may fall on the other side."""
    model = make(codebooks).double()
    seeds, labels = [11, 12, 13, 14, 15], torch.tensor([0, 1, 2, 3, 0])
    options = {"guidance": 2.0, "temperature": 1.3, "top_p": 0.95}
    together = model.sample(labels, seeds=seeds, **options)
    for place in range(5):
        alone = model.sample(labels[place : place + 1], seeds=seeds[place : place + 1], **options)
        assert torch.equal(alone, together[place : place + 1])
    assert not torch.equal(together[0], together[4])  # one class, two seeds


def test_global_random_numbers_modes_and_gradients_are_left_alone() -> None:
    model = make(2, token_dropout=0.5)
    model.blocks[0].eval()
    state = torch.get_rng_state()
    tokens = model.sample(LABELS)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert not model.blocks[0].training
    assert torch.equal(tokens, model.sample(LABELS, seeds=range(3)))
    # What is drawn may be trained on: it is no tensor of inference mode.
    model.training_forward({"indices": tokens, "label": LABELS}).logits["first"].sum().backward()


@every
def test_temperature_nothing_is_the_best_code_whatever_the_seed(codebooks) -> None:
    model = make(codebooks).double()
    best = model.sample(LABELS, temperature=0.0, guidance=1.5)
    assert torch.equal(best, model.sample(LABELS, temperature=0.0, guidance=1.5, seeds=[7, 8, 9]))
    assert torch.equal(best, model.sample(LABELS, top_k=1, guidance=1.5, seeds=[7, 8, 9]))
    for temperature in (1e-6, 1e-300):
        assert torch.equal(best, model.sample(LABELS, temperature=temperature, guidance=1.5, seeds=[7, 8, 9]))


@torch.no_grad()
def test_first_tokens_have_the_frequencies_that_the_model_says() -> None:
    model = make(0, grid=(1, 1)).double().eval()
    labels = torch.zeros(4000, dtype=torch.int64)
    counts = model.sample(labels).flatten().bincount(minlength=7) / 4000
    batch = {"indices": torch.zeros(1, 1, 1, 1, dtype=torch.int64), "label": labels[:1]}
    said = model.training_forward(batch).logits["first"].flatten().softmax(dim=0)
    torch.testing.assert_close(counts.double(), said, atol=0.03, rtol=0.0)


@torch.no_grad()
def test_more_guidance_makes_tokens_likelier_given_the_class() -> None:
    model = make(2).double().eval()
    labels = torch.arange(64) % CLASSES

    def preference(scale: float) -> float:
        """log p(first token | class) - log p(first token | no class), on average."""
        tokens = model.sample(labels, guidance=scale)
        told, nothing = (
            model.training_forward({"indices": tokens, "label": label}).logits["first"][:, 0, 0]
            for label in (labels, torch.full_like(labels, CLASSES))
        )
        first = tokens[:, 0, 0, 0]
        return float(F.cross_entropy(nothing, first) - F.cross_entropy(told, first))

    assert preference(0.0) < preference(1.0) < preference(3.0) < preference(20.0)


def test_captions_guide_as_classes_do() -> None:
    model = make(2, **CAPTIONS).double()
    text = batch_of(model)["text"]
    mask = torch.tensor([[False, True, True], [True, True, True], [False, False, True]])
    options = {"guidance": 3.0, "temperature": 0.0}
    tokens = model.sample(text=text, text_mask=mask, **options)
    assert tokens.shape == (3, 2, 2, 3)
    padded = text.clone()
    padded[~mask] += 1.0
    assert torch.equal(model.sample(text=padded, text_mask=mask, **options), tokens)
    alone = model.sample(text=text[2:], text_mask=mask[2:], **options)
    assert torch.equal(alone, tokens[2:])


def test_captions_cached_are_uncached() -> None:
    model = make(0, **CAPTIONS).double().eval()
    text, mask = batch_of(model)["text"], torch.tensor([[False, True, True]]).expand(3, 3)
    tokens = model.sample(text=text, text_mask=mask, temperature=0.0)
    scores = model.training_forward({"indices": tokens, "text": text, "text_mask": mask}).logits["first"]
    assert torch.equal(scores.argmax(dim=-1), tokens[:, 0])


def test_without_classes_it_draws_as_many_as_there_are_seeds() -> None:
    model = make(2, num_classes=0)
    assert model.sample(seeds=[4, 5]).shape == (2, 2, 2, 3)
    with pytest.raises(UserError, match="neither classes nor captions to be guided by"):
        model.sample(seeds=[4], guidance=2.0)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_with_weights_that_are_not_finite_draws_nothing(temperature) -> None:
    model = make(2)
    with torch.no_grad():
        model.outputs[1].weight[0, 0] = float("nan")
    with pytest.raises(UserError, match="scores are not finite"):
        model.sample(LABELS, temperature=temperature)


def test_progress_tells_each_position_once() -> None:
    seen: list[tuple[int, int]] = []
    make(2).sample(LABELS, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(place, 6) for place in range(1, 7)]


def test_memory_is_allocated_once(monkeypatch) -> None:
    from smalti.nn import causal

    made: list[int] = []
    before = causal.KeyValues.__init__

    def count(self, *arguments) -> None:
        before(self, *arguments)
        made.append(self.keys.numel())

    monkeypatch.setattr(causal.KeyValues, "__init__", count)
    make(3).sample(LABELS, guidance=2.0)
    assert len(made) == 4  # two blocks, and two of the head
    assert made[2] * 2 == made[0]  # three codebooks beside six positions


def test_schedules_begin_at_one_and_end_at_the_scale() -> None:
    for schedule in ("linear", "cosine"):
        along = [row[0] for row in SamplingOptions(guidance=3.0, guidance_schedule=schedule).scales(["a"], 9)]
        assert along[0] == 1.0
        assert along[-1] == pytest.approx(3.0)
        assert along[4] == pytest.approx(2.0)
        assert along == sorted(along)
    constant = SamplingOptions(guidance={"b": 3.0}, guidance_interval=(1, 2)).scales(["a", "b"], 4)
    assert constant == [[1.0, 1.0], [1.0, 3.0], [1.0, 3.0], [1.0, 1.0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance": -1.0}, "guidance=-1.0: expected a number, 0 or more"),
        ({"guidance": float("nan")}, "guidance=nan"),
        ({"guidance": {"firts": 2.0}}, "did you mean 'first'?"),
        ({"temperature": -0.1}, "temperature=-0.1: expected 0 or more"),
        ({"temperature": float("inf")}, "temperature=inf"),
        ({"top_k": -1}, "top_k=-1"),
        ({"top_k": 1.5}, "top_k=1.5"),
        ({"top_p": 0.0}, "top_p=0.0: expected above 0, and at most 1"),
        ({"top_p": 1.1}, "top_p=1.1"),
        ({"guidance_interval": (3, 2)}, "guidance_interval=(3, 2)"),
        ({"guidance_schedule": "cosin"}, "did you mean 'cosine'?"),
        ({"seeds": [1, 2]}, "2 seeds for 3 images: expected one each"),
        ({"classes": None}, "classes are missing"),
        ({"classes": torch.tensor([0, CLASSES + 1, 0])}, f"label {CLASSES + 1}"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_drawn(options, message) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        make(2).sample(**{"classes": LABELS, **options})
