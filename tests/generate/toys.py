"""A small tokenizer, a store of its tokens, and recipes of models that learn from it."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from smalti.assembly.assemble import assemble
from smalti.assembly.recipe import validate
from smalti.bottlenecks.tokens import Branch, Tokens
from smalti.config import Document
from smalti.engine.trainer import Trainer
from smalti.models.autoencoder import Autoencoder
from smalti.models.conv import ConvDecoder, ConvEncoder
from smalti.nn.hashing import hash_of
from smalti.quantizers.nearest import Nearest
from smalti.tokens.description import Tokenizer
from smalti.tokens.store import TokenStore
from tests.engine.toys import everything
from tests.tokens.stores import plan, tokens, write

CODEBOOKS = {"one": 8, "two": 4}
GRID = (2, 3)


class DiedHereError(Exception):
    """The process dies here."""


def tokenizer(folder: Path, seed: int = 0) -> Autoencoder:
    """Grey images, 2 x 2 pixels to codes of two books; saved in ``folder``."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "image_channels": 1, "patch_size": 2, "channels": 8, "multipliers": [1], "blocks": 1, "norm": "none",
        "middle_blocks": 0, "middle_attention": False,
    }  # fmt: skip
    books = {name: Branch(quantizer=Nearest(size=size, channels=2)) for name, size in CODEBOOKS.items()}
    made = Autoencoder(
        ConvEncoder(out_channels=8, **sizes),
        Tokens(in_channels=8, codebooks=books),
        ConvDecoder(latent_channels=4, z_channels=8, **sizes),
    ).eval()
    made.save_pretrained(folder)
    return made


def store(folder: Path, of: Path, count: int = 12, views: int = 2) -> TokenStore:
    """Seeded tokens with labels 0, 1, 2 in turn, named as tokens of the tokenizer that is saved in ``of``."""
    every = tokens(CODEBOOKS, count * views, GRID).reshape(count, views, len(CODEBOOKS), *GRID)
    weights = Autoencoder.from_pretrained(of).state_dict()
    what = plan(CODEBOOKS, views, count, tokenizer=Tokenizer(name="toy", path=str(of), hash=hash_of(weights)))
    labels = {"label": [item % 3 for item in range(count)]}
    return write(folder, what, [{"indices": one} for one in every], labels)


def recipe(source: Mapping[str, Any], **engine: Any) -> dict[str, Any]:
    """A FAR on ``source``, measured on its first view of every third image."""
    held_out = {**source, "part": "held_out", "every": 3}
    return {
        "model": {
            "type": "far", "codebooks": CODEBOOKS, "grid": list(GRID), "num_classes": 3, "width": 16, "depth": 1,
            "head_depth": 1, "heads": 2, "hidden": 16,
        },
        "objective": {"generator": {"tokens": {"type": "cross_entropy", "label_smoothing": 0.1}}},
        "data": {"source": {**source, "part": "train", "every": 3}, "batch_size": 3},
        "optim": {"generator": {"type": "adamw", "lr": 1e-2, "weight_decay": 0.05, "clip": 1.0}},
        "validation": {"data": {"source": held_out, "batch_size": 4}, "every": 2, "metrics": ["bits_per_token"]},
        "engine": {
            "max_steps": 6, "log_every": 1, "sample_every": 0, "checkpoint_every": 3, "ema": {"decay": 0.9}, **engine,
        },
    }  # fmt: skip


def trainer(folder: Path, what: Mapping[str, Any]) -> Trainer:
    return assemble(validate(Document(dict(what))), folder, quiet=True)


def killed_after(trainer: Trainer, step: int) -> None:
    """Runs ``trainer`` until it has made so many steps, and dies there."""
    cycle = trainer.run_cycle

    def until_death(measure: bool = False) -> Any:
        if trainer.state.step == step:
            raise DiedHereError
        return cycle(measure)

    trainer.run_cycle = until_death  # type: ignore[method-assign]
    with contextlib.suppress(DiedHereError):
        trainer.run()


def parameters_after_four_steps(folder: Path, kind: str, batch_size: int) -> dict[str, list[float]]:
    """In float64, of a run on tokens of a known distribution, without dropout, whose global batch is 8."""
    books: Mapping[str, int] = {"far": CODEBOOKS, "gpt": {"one": 8}}[kind]
    source = {"type": "known_tokens", "codebooks": books, "grid": list(GRID), "num_classes": 3, "count": 20}
    still: Sequence[str] = ("class_dropout", "token_dropout", "dropout", "ffn_dropout")
    what = recipe(source, precision="fp64", max_steps=4, checkpoint_every=0)
    what["model"] = {**what["model"], "type": kind, "codebooks": books, **dict.fromkeys(still, 0.0)}
    if kind == "gpt":
        del what["model"]["head_depth"]
    what["data"] = {"source": source, "batch_size": batch_size}
    what["validation"]["data"]["source"] = {**source, "seed": 1}
    made = trainer(folder, what)
    made.run()
    return {name: value.double().flatten().tolist() for name, value in everything(made).items()}


def trained(folder: Path, max_steps: int) -> Path:
    """The folder, with a ``tokenizer``, the ``store`` of its tokens and a ``run`` that learned from it."""
    tokenizer(folder / "tokenizer")
    store(folder / "store", folder / "tokenizer")
    source = {"type": "tokens", "path": str(folder / "store")}
    trainer(folder / "run", recipe(source, max_steps=max_steps)).run()
    return folder
