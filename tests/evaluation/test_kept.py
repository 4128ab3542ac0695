"""Features of real images that are kept: the second tokenizer's network sees none of them, and nothing can mislead."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from smalti.evaluation import _metrics
from smalti.evaluation.passing import Question, measure
from smalti.evaluation.protocol import Protocol
from smalti.metrics import _kept
from smalti.metrics._kept import KeptFeatures
from tests.cli.conftest import Verb, smalti_cli  # noqa: F401
from tests.evaluation.test_passing import question
from tests.evaluation.tokenizers import photos

METRICS = ["fid", "kid"]


class Stripes(torch.nn.Module):
    """A network of 8 features, the means of stripes, that tells how many images it saw."""

    name = "stripes"

    def __init__(self, counted: list[int], scale: float) -> None:
        super().__init__()
        self.counted = counted
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        self.counted.append(len(images))
        return (torch.nn.functional.adaptive_avg_pool1d(images.flatten(1)[:, None], 8)[:, 0] * self.scale,)


@pytest.fixture(name="seen")
def _seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images the network of the features saw, batch by batch."""
    counted: list[int] = []

    def network(protocol: Protocol, layer: int | None, weights: str) -> Stripes:
        return Stripes(counted, 2.0 if protocol.features.resize == "half_pixel" else 1.0)

    monkeypatch.setattr(_metrics, "_network", network)
    return counted


def asked(folder: Path, cache: Path | None, words: str = "jpeg:q=10", **options: Any) -> Question:
    found = question(folder, words, "smalti@16", metrics=METRICS, batch_size=2, **options)
    return replace(found, cache=cache)


def test_the_second_evaluation_looks_at_no_real_image(tmp_path: Path, seen: list[int]) -> None:
    folder, cache = photos(tmp_path / "in", 5), tmp_path / "cache"
    first = measure(asked(folder, cache))
    assert sum(seen) == 10
    seen.clear()
    again = measure(asked(folder, cache))
    assert sum(seen) == 5
    assert again.numbers == first.numbers
    assert again.intervals == first.intervals
    seen.clear()
    measure(asked(folder, cache, "jpeg:q=50"))  # another tokenizer
    assert sum(seen) == 5
    seen.clear()
    assert measure(asked(folder, cache, limit=3)).samples == 3  # some of the images
    assert sum(seen) == 3
    seen.clear()
    assert measure(asked(folder, None)).numbers == first.numbers
    assert sum(seen) == 10
    assert [path.suffix for path in cache.rglob("*") if path.is_file()] == [".features"]


def test_other_images_networks_and_protocols_are_not_taken_for_the_same(tmp_path: Path, seen: list[int]) -> None:
    folder, cache = photos(tmp_path / "in", 4), tmp_path / "cache"
    measure(asked(folder, cache))
    size = (folder / "0.png").stat().st_size
    # a file of the same name and size, but other pixels
    data = bytearray((folder / "0.png").read_bytes())
    photos(tmp_path / "other", 5)
    other = bytearray((tmp_path / "other" / "4.png").read_bytes())
    (folder / "0.png").write_bytes((other + b"\0" * size)[: max(size, len(other))])
    seen.clear()
    changed = measure(asked(folder, cache))
    assert sum(seen) == 4 + 2  # its batch is looked at
    assert changed.numbers == measure(asked(folder, None)).numbers
    (folder / "0.png").write_bytes(data)
    for question_ in (
        replace(asked(folder, cache), protocol=question(folder, protocol="smalti-uint8@16").protocol),
        replace(asked(folder, cache), protocol=question(folder, protocol="pytorch-fid").protocol),
    ):
        seen.clear()
        measure(question_)
        assert sum(seen) == 8


@pytest.mark.parametrize("harm", ["cut", "flipped", "of another", "renamed"])
def test_what_is_damaged_is_said_and_computed_anew(tmp_path: Path, seen: list[int], harm: str) -> None:
    folder, cache = photos(tmp_path / "in", 4), tmp_path / "cache"
    first = measure(asked(folder, cache))
    [part] = cache.rglob("*.features")
    data = bytearray(part.read_bytes())
    if harm == "cut":
        part.write_bytes(data[:-10])
    elif harm == "flipped":
        data[50] ^= 1
        part.write_bytes(data)
    elif harm == "of another":
        photos(tmp_path / "other", 7)
        measure(asked(tmp_path / "other", tmp_path / "elsewhere"))
        [other] = (tmp_path / "elsewhere").rglob("*.features")
        part.write_bytes(other.read_bytes())
    else:
        part.rename(part.with_name("0" * 32 + "-8.features"))
    seen.clear()
    said: list[str] = []
    assert measure(asked(folder, cache), say=said.append).numbers == first.numbers
    assert sum(seen) == 8
    assert len(said) == 1
    assert "computed anew" in said[0]
    seen.clear()
    assert measure(asked(folder, cache), say=said.append).numbers == first.numbers
    assert (sum(seen), len(said)) == (4, 1)


def test_a_killed_pass_keeps_what_it_saved_and_no_rest(
    tmp_path: Path, seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, cache = photos(tmp_path / "in", 4), tmp_path / "cache"
    broken = asked(folder, cache)

    def dies(images: Tensor, names: list[str]) -> Any:
        if names == ["2.png", "3.png"]:
            raise KeyboardInterrupt
        return type(broken.adapter).see(broken.adapter, images, names)

    monkeypatch.setattr(broken.adapter, "see", dies)
    with pytest.raises(KeyboardInterrupt):
        measure(broken)
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_a_disk_that_is_full_is_said_once_and_measured_all_the_same(
    tmp_path: Path, seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, cache = photos(tmp_path / "in", 4), tmp_path / "cache"
    cache.write_text("a file where a folder should be")
    said: list[str] = []
    found = measure(asked(folder, cache), say=said.append)
    assert found.numbers == measure(asked(folder, None)).numbers
    assert len(said) == 1
    assert "cannot be kept" in said[0]


def test_what_a_killed_process_left_is_removed_once_it_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = tmp_path / "word"
    shelf.mkdir()
    (shelf / ".unfinished-1-aa").write_bytes(b"left")

    def keep() -> None:
        kept = KeptFeatures(tmp_path)
        images = torch.rand(2, 3, 4, 4)
        found = kept.features("word", images, lambda: images.flatten(1))
        assert torch.equal(found, images.flatten(1))
        kept.close()
        assert torch.equal(KeptFeatures(tmp_path).features("word", images.flip(0), dict), images.flatten(1).flip(0))

    keep()
    assert (shelf / ".unfinished-1-aa").exists()
    monkeypatch.setattr(_kept, "OLD", -1.0)
    keep()
    assert not (shelf / ".unfinished-1-aa").exists()
    assert len(list(shelf.iterdir())) == 2


def test_the_command_keeps_in_the_cache_folder_or_nowhere(
    smalti_cli: Verb,  # noqa: F811
    tmp_path: Path,
    seen: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SMALTI_CACHE", str(tmp_path / "cache"))
    words = ("evaluate", "jpeg:q=10", "--data", photos(tmp_path / "in", 3), "--metrics", "fid")
    none = smalti_cli(*words, "--json", "--no-cache")
    assert none.exit_code == 0, none.output
    assert not (tmp_path / "cache").exists()
    first = smalti_cli(*words, "--json")
    [part] = (tmp_path / "cache" / "features").rglob("*.features")
    part.write_bytes(b"damaged")
    second = smalti_cli(*words, "--json")
    assert "computed anew" in second.stderr
    numbers = [json.loads(done.stdout)["numbers"] for done in (none, first, second)]
    assert numbers[0] == numbers[1] == numbers[2]
    assert {"fd_stripes", "fd_stripes_low", "fd_stripes_high"} == set(numbers[0])
