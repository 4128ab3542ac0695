"""Small generators of tokens for tests."""

from typing import Any

import torch
from torch import Tensor, nn

from smalti.models._token_model import TokenModel
from smalti.models.far import FAR
from smalti.models.gpt import GPT

GRID = (2, 3)
CLASSES = 4
SIZES = {"first": 7, "second": 5, "third": 6}
STILL = {"class_dropout": 0.0, "token_dropout": 0.0, "dropout": 0.0, "ffn_dropout": 0.0}
SHAPE = {"grid": GRID, "num_classes": CLASSES, "width": 16, "depth": 2, "heads": 2, "hidden": 24}
CAPTIONS = {"num_classes": 0, "text_width": 6, "text_length": 3}


def make(codebooks: int, **options: Any) -> TokenModel:
    """A ``far`` with that many codebooks, or with 0 a ``gpt``; all its weights are random, outputs too."""
    torch.manual_seed(0)
    names = list(SIZES)[: max(codebooks, 1)]
    shared = {**SHAPE, "codebooks": {name: SIZES[name] for name in names}, **options}
    model: TokenModel = FAR(**shared, head_depth=2) if codebooks else GPT(**shared)
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.3)
    return model


def batch_of(model: TokenModel, count: int = 3, seed: int = 1) -> dict[str, Tensor]:
    """Random tokens, and the condition that the model takes."""
    generator = torch.Generator().manual_seed(seed)
    planes = [torch.randint(size, (count, *model.grid), generator=generator) for size in model.codebooks.values()]
    batch = {"indices": torch.stack(planes, dim=1)}
    if model.num_classes:
        batch["label"] = torch.arange(count) % model.num_classes
    if model.text_length:
        dtype = model.norm.weight.dtype
        batch["text"] = torch.randn(count, 3, 6, generator=generator, dtype=torch.float64).to(dtype)
    return batch
