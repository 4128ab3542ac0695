"""Bits per token and per pixel of models that predict tokens, by probabilities that are known."""

import math

import pytest
import torch
from torch import nn

from smalti.metrics import Prediction
from smalti.metrics.bits_per_pixel import BitsPerPixel
from smalti.metrics.bits_per_token import BitsPerToken
from smalti.metrics.evaluation import examine
from smalti.metrics.psnr import PSNR
from smalti.models import Model
from smalti.outputs import AutoencoderOutput, TokensOutput
from smalti.registry import UserError

SIZES = {"visual": 4, "semantic": 16}


class Knows(Model):
    """Gives the code that is there the probability ``share`` of each codebook, the rest evenly to the others."""

    def __init__(self, **shares):
        super().__init__()
        self.shares = shares
        self.codebooks = {name: SIZES[name] for name in shares}
        self.weight = nn.Parameter(torch.zeros(1))

    @property
    def last_layer(self):
        return self.weight

    def training_forward(self, batch) -> TokensOutput:
        indices = batch["indices"]
        logits = {}
        for plane, (name, share) in enumerate(self.shares.items()):
            there = nn.functional.one_hot(indices[:, plane], SIZES[name]).double()
            logits[name] = torch.log(there * share + (1 - there) * (1 - share) / (SIZES[name] - 1))
        return TokensOutput(logits=logits, indices=indices)


class Reconstructs(Knows):
    """As named, for what metrics refuse."""

    def training_forward(self, batch) -> AutoencoderOutput:
        raise NotImplementedError


def batches(*sizes, side=4, books=SIZES):
    random = torch.Generator().manual_seed(0)
    start = 0
    for size in sizes:
        planes = [torch.randint(K, (size, side, side), generator=random) for K in books.values()]
        yield {"indices": torch.stack(planes, dim=1), "index": torch.arange(start, start + size)}
        start += size


def test_bits_are_minus_log2_of_the_probability_of_what_was_there():
    found = examine(Knows(visual=0.5, semantic=0.125), batches(3, 2), [BitsPerToken(), BitsPerPixel()], factor=2)
    assert dict(found.values) == pytest.approx(
        {
            "bits_per_token": 2.0,
            "bits_per_token/visual": 1.0,
            "bits_per_token/semantic": 3.0,
            "bits_per_pixel": 1.0,  # four bits a place, of 2 x 2 pixels
            "bits_per_pixel/visual": 0.25,
            "bits_per_pixel/semantic": 0.75,
        }
    )
    assert len(found.images) == 5
    assert found.images[4]["index"] == 4
    assert found.images[4]["bits_per_token"] == pytest.approx(2.0)


def test_a_model_that_knows_nothing_needs_the_bits_that_its_tokens_take_to_store():
    found = examine(Knows(visual=1 / 4, semantic=1 / 16), batches(2), [BitsPerPixel()], factor=4)
    stored = sum(math.log2(size) for size in SIZES.values()) / 16
    assert found.values["bits_per_pixel"] == pytest.approx(stored)


def test_of_one_codebook_there_is_one_number():
    seen = batches(2, books={"visual": 4})
    assert dict(examine(Knows(visual=0.25), seen, [BitsPerToken()]).values) == pytest.approx({"bits_per_token": 2.0})


def test_images_count_alike_whatever_the_batches():
    output = TokensOutput(
        logits={"visual": torch.randn(3, 2, 2, 4), "vq.0": torch.randn(3, 2, 2, 5)},
        indices=torch.ones(3, 2, 2, 2, dtype=torch.int64),
    )
    whole = Prediction.of(output, 2)
    single = [Prediction(bits={name: bits[i : i + 1] for name, bits in whole.bits.items()}, factor=2) for i in range(3)]
    for metric in (BitsPerToken(), BitsPerPixel()):
        one, many = metric.create(), metric.create()
        metric.update(one, whole)
        for prediction in single:
            metric.update(many, prediction)
        assert {k: float(v) for k, v in many.compute().items()} == pytest.approx(
            {k: float(v) for k, v in one.compute().items()}
        )


def test_pixels_need_a_factor():
    with pytest.raises(UserError, match="how many pixels a token stands for"):
        examine(Knows(visual=0.5, semantic=0.5), batches(2), [BitsPerPixel()])


def test_metrics_of_the_other_kind_are_refused():
    with pytest.raises(UserError, match=r"metrics.best: it measures images.*bits_per_pixel, bits_per_token"):
        examine(Knows(visual=0.5, semantic=0.5), batches(2), {"best": PSNR()})
    with pytest.raises(UserError, match=r"metrics.BitsPerToken: it is of models that predict tokens"):
        examine(Reconstructs(visual=0.5), batches(2), [BitsPerToken()])


def test_without_an_item_there_is_no_number():
    with pytest.raises(UserError, match="no image to evaluate on"):
        examine(Knows(visual=0.5), iter(()), [BitsPerToken()])
