"""The pass: numbers by hand, rows, what is kept when it is killed, shares of ranks."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing

from smalti.data.image_folder import ImageFolder
from smalti.evaluation import passing
from smalti.evaluation.intervals import interval
from smalti.evaluation.opening import open_adapter
from smalti.evaluation.passing import Question, contents_hash, measure
from smalti.evaluation.protocol import protocol_named
from smalti.evaluation.results import Result, read_result, schema
from smalti.metrics._uniform_ssim import uniform_ssim
from smalti.nn.hashing import hash_of
from smalti.registry import UserError
from tests.evaluation.tokenizers import photos

HALF = "tests.evaluation.tokenizers:half"


def question(folder: Path, words: str = HALF, protocol: str = "whole", **options: Any) -> Question:
    source = ImageFolder(str(folder))
    adapter = open_adapter(words, originals=source.names)
    return Question(
        adapter=adapter,
        source=source,
        path=str(folder),
        protocol=protocol_named(protocol),
        device=torch.device("cpu"),
        **options,
    )


def test_numbers_are_those_of_a_loop_by_hand(tmp_path: Path) -> None:
    asked = question(photos(tmp_path / "in", sizes=((20, 24), (22, 18))))
    result = measure(asked)
    decibels = []
    for index in range(5):
        image = torch.from_numpy(np.array(asked.source[index]["image"])).double() / 127.5 - 1
        decibels.append(10 * torch.log10(1 / ((image * 0.5 / 2) ** 2).mean()))
    assert [row["psnr"] for row in result.images] == pytest.approx([float(value) for value in decibels], abs=1e-4)
    assert result.numbers["psnr"] == pytest.approx(float(sum(decibels) / 5), abs=1e-5)
    tokens = [(-(-h // 4)) * (-(-w // 4)) for h, w in ((20, 24), (22, 18), (20, 24), (22, 18), (20, 24))]
    rates = [4 * count / (h * w) for count, (h, w) in zip(tokens, ((20, 24), (22, 18)) * 2 + ((20, 24),), strict=True)]
    assert result.numbers["bits_per_pixel"] == pytest.approx(sum(rates) / 5)
    assert [row["name"] for row in result.images] == [f"{number}.png" for number in range(5)]
    low, high = result.intervals["psnr"]
    assert low < result.numbers["psnr"] < high
    assert (result.samples, result.limited) == (5, False)


@pytest.mark.parametrize("how", ["image_mean", "pooled"])
def test_the_protocol_decides_the_mean(tmp_path: Path, how: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(f"crop: none\npsnr: {{mean: {how}}}\n")
    folder = photos(tmp_path / "in", sizes=((20, 24), (40, 18)))
    result = measure(question(folder, protocol=str(path), metrics=["psnr"]))
    images = [torch.from_numpy(np.array(ImageFolder(str(folder))[i]["image"])).double() for i in range(5)]
    errors = [((image / 127.5 - 1) / 4).square() for image in images]
    if how == "pooled":
        expected = 10 * torch.log10(1 / (sum(e.sum() for e in errors) / sum(e.numel() for e in errors)))
        assert "psnr" not in result.images[0]
    else:
        expected = sum(10 * torch.log10(1 / e.mean()) for e in errors) / 5
    assert result.numbers["psnr"] == pytest.approx(float(expected), abs=1e-5)


def test_an_inflated_range_has_a_name_of_its_own(tmp_path: Path) -> None:
    numbers = measure(question(photos(tmp_path / "in"), protocol="llamagen@16", metrics=["ssim"])).numbers
    assert list(numbers) == ["ssim_inflated"]


def test_uniform_windows_are_scikit_images() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    x = torch.rand(1, 3, 24, 31, dtype=torch.float64)
    y = (x + 0.1 * torch.randn_like(x)).clamp(0, 1)
    for data_range in (1.0, 2.0):
        found = uniform_ssim(2 * x - 1, 2 * y - 1, k1=0.01 * data_range, k2=0.03 * data_range)
        arrays = (value[0].permute(1, 2, 0).numpy() for value in (x, y))
        assert found.item() == pytest.approx(
            metrics.structural_similarity(*arrays, channel_axis=2, data_range=data_range), abs=1e-12
        )


def test_a_limit_and_too_few_images_are_said(tmp_path: Path) -> None:
    result = measure(question(photos(tmp_path / "in"), protocol="adm@16", limit=3))
    assert (result.samples, result.limited) == (3, True)
    assert result.cautions["samples"] == "3 images: adm is meant for 50,000"


def comparable(result: Result) -> dict[str, Any]:
    return {name: value for name, value in vars(result).items() if name != "seconds"}


@pytest.mark.parametrize("killed_after", [1, 3, 4])
def test_a_killed_pass_goes_on_and_ends_as_the_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    folder = photos(tmp_path / "in", sizes=((20, 24), (22, 18)))
    monkeypatch.setattr(passing, "SAVED_EVERY", 0.0)
    monkeypatch.setattr(passing, "DEAR", 0.0)
    metrics = ["psnr", "ssim", "codebook_usage", "bits_per_image"]
    straight = measure(question(folder, metrics=metrics, batch_size=1))
    asked = question(folder, metrics=metrics, batch_size=1, partial=tmp_path / "out")
    see, seen = asked.adapter.see, []

    def dies(images: torch.Tensor, names: list[str]) -> Any:
        if len(seen) == killed_after:
            raise KeyboardInterrupt
        seen.append(names)
        return see(images, names)

    monkeypatch.setattr(asked.adapter, "see", dies)
    with pytest.raises(KeyboardInterrupt):
        measure(asked)
    assert len(list((tmp_path / "out").iterdir())) == 1
    again = question(folder, metrics=metrics, batch_size=1, partial=tmp_path / "out")
    counted, whole = [], again.adapter.see
    monkeypatch.setattr(again.adapter, "see", lambda images, names: counted.append(names) or whole(images, names))
    assert comparable(measure(again)) == comparable(straight)
    assert len(counted) == 5 - killed_after
    assert list((tmp_path / "out").iterdir()) == []


def test_what_another_question_left_or_what_is_damaged_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = photos(tmp_path / "in"), tmp_path / "out"
    monkeypatch.setattr(passing, "SAVED_EVERY", 0.0)
    monkeypatch.setattr(passing, "DEAR", 0.0)
    asked = question(folder, batch_size=1, partial=out)
    monkeypatch.setattr(passing.Partial, "forget", lambda self: None)
    straight = measure(asked)
    [left] = out.iterdir()
    left.write_bytes(left.read_bytes()[:100])
    assert comparable(measure(question(folder, batch_size=1, partial=out))) == comparable(straight)
    other = measure(question(folder, batch_size=1, partial=out, limit=2))
    assert other.samples == 2


def work(number: int, ranks: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store{ranks}", rank=number, world_size=ranks)
    try:
        result = measure(question(Path(folder) / "in", metrics=["psnr", "ssim", "codebook_usage", "perplexity"]))
        result.write(Path(folder) / f"{ranks}-{number}.json")
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("ranks", [3, pytest.param(2, marks=pytest.mark.slow)])
def test_several_processes_give_what_one_gives(tmp_path: Path, ranks: int) -> None:
    photos(tmp_path / "in", sizes=((20, 24), (22, 18)))
    work(0, 1, str(tmp_path))
    alone = read_result(tmp_path / "1-0.json")
    multiprocessing.start_processes(work, (ranks, str(tmp_path)), nprocs=ranks, start_method="spawn")  # type: ignore[no-untyped-call]
    for number in range(ranks):
        found = read_result(tmp_path / f"{ranks}-{number}.json")
        assert found.numbers == pytest.approx(alone.numbers, rel=1e-12)
        assert [row["name"] for row in found.images] == [row["name"] for row in alone.images]
        assert found.intervals == alone.intervals


def test_results_have_the_shipped_schema_and_come_back(tmp_path: Path) -> None:
    folder = photos(tmp_path / "in")
    result = measure(question(folder, contents=True))
    result.write(tmp_path / "evaluation.json")
    again = read_result(tmp_path)
    assert json.loads((tmp_path / "evaluation.json").read_text()).keys() == schema()["properties"].keys()
    assert set(schema()["required"]) == schema()["properties"].keys()
    assert again.numbers == result.numbers
    assert again.data["contents_sha256"] == contents_hash(ImageFolder(str(folder)))
    assert again.tokenizer["weights_sha256"] == hash_of({})
    (folder / "0.png").write_bytes((folder / "1.png").read_bytes())
    assert measure(question(folder, contents=True)).data["contents_sha256"] != again.data["contents_sha256"]


@pytest.mark.parametrize(
    ("text", "says"), [("{}", "schema=None"), ('{"schema": 9}', "schema=9"), ('{"schema": 1}', "no 'tokenizer'")]
)
def test_what_is_no_result_is_said(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(UserError, match=says):
        read_result(tmp_path)


def test_worst_images_are_the_lowest_or_of_distances_the_highest(tmp_path: Path) -> None:
    result = measure(question(photos(tmp_path / "in")))
    ordered = sorted(result.images, key=lambda row: row["psnr"])
    assert [row["name"] for row in result.worst("psnr", 2)] == [row["name"] for row in ordered[:2]]
    assert result.worst("bits_per_pixel", 1)[0]["bits_per_pixel"] == max(row["bits_per_pixel"] for row in result.images)
    for number, worst in (("lpips_alex", 2.0), ("ssim_inflated", 1.0), ("of_mine", 1.0)):
        named = replace(result, images=[{number: 1.0}, {number: 2.0}])
        assert named.worst(number, 1) == [{number: worst}]


def test_intervals_hold_the_mean_as_often_as_they_say() -> None:
    generator = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(200):
        found = interval(torch.randn(60, generator=generator).tolist())
        assert found is not None
        held += found[0] <= 0.0 <= found[1]
    assert 180 <= held <= 199
    assert interval([1.0]) is None
    assert interval([1.0, float("inf")]) is None


@pytest.mark.parametrize(("metrics", "says"), [(["psrn"], "did you mean 'psnr'"), (["psnr", "psnr"], "there twice")])
def test_metrics_that_are_none_are_said(tmp_path: Path, metrics: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        measure(question(photos(tmp_path / "in"), metrics=metrics))


def test_nothing_is_kept_where_nothing_was_asked_for(tmp_path: Path) -> None:
    before = set(os.listdir(photos(tmp_path / "in")))
    measure(question(tmp_path / "in"))
    assert set(os.listdir(tmp_path / "in")) == before
