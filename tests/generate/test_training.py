"""Models of tokens in the one Trainer: exact resumption, several processes, decay, and what can be learned at all."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from smalti.engine.optimizers import parameter_groups
from smalti.models.far import FAR
from smalti.registry import UserError
from tests.engine.job import launch
from tests.engine.test_two_processes import largest_difference
from tests.engine.toys import differences, everything
from tests.generate import toys

KINDS = ("far", "gpt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a ``tokenizer`` and the ``store`` of its tokens."""
    made = tmp_path_factory.mktemp("tokens")
    toys.tokenizer(made / "tokenizer")
    toys.store(made / "store", made / "tokenizer")
    return made


def source(folder: Path) -> dict[str, Any]:
    return {"type": "tokens", "path": str(folder / "store")}


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_run_equals_uninterrupted_run(folder: Path, tmp_path: Path, workers: int) -> None:
    """In the middle of an epoch, with accumulation, dropout, averages, random views and pictures."""
    what = toys.recipe(source(folder), accumulate=2, sample_every=2)
    what["data"]["workers"] = workers
    straight = toys.trainer(tmp_path / "straight", what)
    straight.run()
    toys.killed_after(toys.trainer(tmp_path / "resumed", what), 4)
    resumed = toys.trainer(tmp_path / "resumed", what)
    assert resumed.run(resume=True).finished
    assert differences(everything(straight), everything(resumed)) == []
    for name in ("00000002.png", "00000006.png"):
        first, second = (tmp_path / run / "samples" / name for run in ("straight", "resumed"))
        assert first.read_bytes() == second.read_bytes()
    logs = [(tmp_path / run / "evaluation.json").read_text() for run in ("straight", "resumed")]
    assert json.loads(logs[0]) == json.loads(logs[1]) | {"seconds": json.loads(logs[0])["seconds"]}


def test_two_processes_equal_one(tmp_path: Path) -> None:
    answers = launch(tmp_path, [("tokens", {"kind": kind}) for kind in KINDS])
    for kind, of_two in zip(KINDS, answers, strict=True):
        alone = toys.parameters_after_four_steps(tmp_path / kind, kind, batch_size=8)
        assert largest_difference(alone, of_two) < 1e-12


def test_bits_fall_to_what_no_model_can_do_without(tmp_path: Path) -> None:
    known = {"type": "known_tokens", "codebooks": toys.CODEBOOKS, "grid": list(toys.GRID), "num_classes": 3}
    what = toys.recipe(known, max_steps=60, ema=None, log_every=60, checkpoint_every=0)
    what["data"] = {"source": {**known, "count": 4096}, "batch_size": 64}
    what["validation"] = {
        "data": {"source": {**known, "seed": 1, "count": 1024}, "batch_size": 512}, "metrics": ["bits_per_token"],
    }  # fmt: skip
    what["objective"] = {"generator": {"tokens": {"type": "cross_entropy"}}}
    what["model"]["class_dropout"] = 0.0
    made = toys.trainer(tmp_path, what)
    found = made.run().evaluation
    for name, entropy in made.loader._dataset.source.entropy.items():  # type: ignore[attr-defined]
        assert entropy * 0.95 < found[f"bits_per_token/{name}"] < entropy * 1.15


def test_matrices_and_embeddings_decay_and_gains_and_biases_do_not() -> None:
    model = FAR(codebooks=toys.CODEBOOKS, grid=toys.GRID, num_classes=3, width=16, depth=1, head_depth=1, heads=2)
    decayed, others = ({id(p) for p in group["params"]} for group in parameter_groups(model, 0.1))  # type: ignore[attr-defined]
    for name, parameter in model.named_parameters():
        flat = "norm" in name or name.endswith("bias")
        assert id(parameter) in (others if flat else decayed), name


def test_pictures_need_the_tokenizer_and_say_so(folder: Path, tmp_path: Path) -> None:
    known = {"type": "known_tokens", "codebooks": toys.CODEBOOKS, "grid": list(toys.GRID), "num_classes": 3}
    what = toys.recipe(source(folder), sample_every=2)
    what["data"]["source"] = known
    what["validation"]["data"]["source"] = known
    with pytest.raises(UserError, match=r"engine.sample_every: pictures need a tokenizer.*sample_every: 0"):
        toys.trainer(tmp_path / "run", what)


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("model", {"codebooks": {"two": 4, "one": 8}}, "set model.codebooks={one: 8, two: 4}"),
        ("model", {"codebooks": {"one": 8}}, "its tokens are one of 8 codes, two of 4 codes on 2 x 3 places"),
        ("model", {"grid": [3, 2]}, r"model.grid=\[2, 3\]"),
        ("model", {"num_classes": 2}, "label 2: expected a whole number from 0 to 1"),
    ],
)
def test_model_and_store_must_agree(
    folder: Path, tmp_path: Path, section: str, change: dict[str, Any], message: str
) -> None:
    what = toys.recipe(source(folder))
    what[section] |= change
    with pytest.raises(UserError, match=message):
        toys.trainer(tmp_path / "run", what)


def test_held_out_tokens_of_another_tokenizer_are_refused(folder: Path, tmp_path: Path) -> None:
    toys.tokenizer(tmp_path / "other", seed=1)
    toys.store(tmp_path / "store", tmp_path / "other")
    what = toys.recipe(source(folder))
    what["validation"]["data"]["source"] = source(tmp_path)
    with pytest.raises(UserError, match=r"validation.data.source: its tokens are of another tokenizer"):
        toys.trainer(tmp_path / "run", what)


def test_an_ordinary_batch_of_tokens_counts_its_items(folder: Path, tmp_path: Path) -> None:
    made = toys.trainer(tmp_path, toys.recipe(source(folder), max_steps=2, accumulate=2))
    assert made.run().evaluation["training_images"] == 2 * 2 * 3
    assert torch.is_tensor(next(iter(made.loader.batches()))["indices"])
