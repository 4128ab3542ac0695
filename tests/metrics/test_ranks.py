"""Two processes that share the images find what one finds alone, also when one of them has none."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from PIL import Image
from torch import distributed as dist

from smalti.data.image_folder import ImageFolder
from smalti.data.loader import evaluation_batches
from smalti.data.transforms import Transform
from smalti.metrics.evaluation import evaluate
from tests.metrics.test_evaluation import METRICS, Rounding
from tests.metrics.test_feature_metrics import Averages, made_of


def measure(folder: str, rank: int, world_size: int) -> dict[str, float]:
    batches = evaluation_batches(ImageFolder(folder), Transform(), 2, rank, world_size)
    return evaluate(Rounding(), batches, {**METRICS, **made_of(Averages())})


def one_rank(rank: int, meeting: str, folders: list[str], results: Any) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    results[rank] = [measure(folder, rank, 2) for folder in folders]
    dist.destroy_process_group()


def test_ranks_agree_with_one_process(tmp_path: Path) -> None:
    folders = []
    for number in (1, 7):
        folder = tmp_path / str(number)
        folder.mkdir()
        folders.append(str(folder))
        for index in range(number):
            pixels = np.random.default_rng(index).integers(0, 256, (16, 12 + 4 * index, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.png")
    alone = [measure(folder, 0, 1) for folder in folders]
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(one_rank, (str(tmp_path / "meeting"), folders, results), nprocs=2)
        for rank in (0, 1):
            for found, expected in zip(results[rank], alone, strict=True):
                assert found == pytest.approx(expected, rel=1e-12, nan_ok=True)  # of one image some are none
