"""Frozen networks in bf16: what changes is the precision of their convolutions and products, and nothing else."""

from typing import Any

import pytest
import torch
from torch import nn

from smalti.engine.runtime import Runtime
from smalti.engine.settings import EngineSettings
from smalti.extractors import Extractor, TextImageExtractor
from smalti.extractors.vision_transformer import VisionTransformer
from smalti.losses import lpips
from smalti.losses.l1 import L1
from smalti.objectives import GeneratorPhase, Term
from tests.contracts.examples import registered, tiny
from tests.engine.toys import tiny_model

NETWORKS = [cls for cls in registered(Extractor) if cls is not VisionTransformer]  # that of dinov2


# One of them is quick enough where a CPU has no bf16.
@pytest.mark.parametrize(
    "cls", [cls if cls.__name__ == "LPIPS" else pytest.param(cls, marks=pytest.mark.slow) for cls in NETWORKS]
)
def test_a_narrow_network_gives_what_it_gives_under_autocast(cls: type[Extractor]) -> None:
    network, images = tiny(cls), torch.rand(2, 3, 64, 64).mul(2).sub(1).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = [feature.detach().float() for feature in network(images)]
    held = {id(part): getattr(part, "weight", None) for part in network.networks()}
    network.narrow()
    after = network(images)
    for old, new in zip(expected, after, strict=True):
        assert new.dtype == torch.float32
        assert torch.equal(old, new.detach())
    sum(feature.square().mean() for feature in after).backward()
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()
    weighted = [part for part in network.networks() if held[id(part)] is not None]
    narrow = [part for part in weighted if part.weight.dtype == torch.bfloat16]
    assert bool(narrow) != network.exact
    assert not [part for part in narrow if isinstance(part, nn.LayerNorm | nn.BatchNorm2d | nn.Embedding)]
    if isinstance(network, TextImageExtractor):
        assert network.embed_text(["a cat"]).shape[0] == 1


def phase() -> GeneratorPhase:
    teacher = tiny(next(cls for cls in NETWORKS if cls.__name__ == "DINOv2"))
    terms = [Term(name="pixel", loss=L1()), Term(name="lpips", loss=lpips.LPIPS(extractor=tiny(LPIPS)))]
    return GeneratorPhase(tiny_model("gaussian"), terms, teachers={"dino": teacher})


LPIPS = next(cls for cls in NETWORKS if cls.__name__ == "LPIPS")


@pytest.mark.parametrize(
    ("options", "narrow"),
    [
        ({}, False),
        ({"precision": "bf16"}, False),
        ({"frozen": "auto"}, False),
        ({"precision": "bf16", "frozen": "auto"}, True),
        ({"precision": "bf16", "frozen": "auto", "channels_last": True}, True),
    ],
)
def test_networks_of_losses_and_teachers_follow_the_option_and_trained_ones_never(
    options: dict[str, Any], narrow: bool
) -> None:
    made = phase()
    Runtime(EngineSettings(max_steps=1, device="cpu", **options)).place(made)
    frozen = [*made.losses.modules(), *(part for teacher in made.teachers for part in teacher.networks())]
    weights = [part.weight for part in frozen if isinstance(getattr(part, "weight", None), torch.Tensor)]
    kinds = {weight.dtype for weight in weights if weight.ndim == 4}
    assert kinds == {torch.bfloat16 if narrow else torch.float32}
    assert {parameter.dtype for parameter in made.network.parameters()} == {torch.float32}


def test_an_unknown_value_is_refused() -> None:
    with pytest.raises(ValueError, match="frozen='bf16': expected 'float32' or 'auto'"):
        EngineSettings(max_steps=1, frozen="bf16")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="graphs='on': expected 'auto' or 'off'"):
        EngineSettings(max_steps=1, graphs="on")  # type: ignore[arg-type]
