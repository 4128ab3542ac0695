"""A run is not resumed silently on other data: what changed is named, and accepted only if the user says so."""

import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import smalti
from smalti.data import ImageSource
from smalti.data.image_folder import ImageFolder
from smalti.data.loader import BatchLoader
from smalti.data.transforms import Transform
from smalti.engine import fingerprint
from smalti.engine.checkpoint import MANIFEST, STATE, sha256
from smalti.engine.fingerprint import Fingerprint
from smalti.engine.settings import ValidationSettings
from smalti.registry import UserError
from tests.cli.conftest import TINY
from tests.engine.toys import Gradients, differences, everything, tiny_trainer

STEPS = 3
NAMES = ("a.png", "b.png", "below/c.png", "d.png")


def draw(path: Path, seed: int) -> None:
    """Noise, whose file is larger for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 20 + seed, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Four images with masks and a table."""
    for number, name in enumerate(NAMES):
        for folder in ("images", "masks"):
            draw(tmp_path / folder / name, number)
    rows = [f"{name},{number},a hill" for number, name in enumerate(NAMES)]
    (tmp_path / "table.csv").write_text("\n".join(["file,label,text", *rows, "unused.png,0,no image\n"]))
    return tmp_path / "images"


def folder_of(images: Path, **options: Any) -> ImageFolder:
    masks = {"mask": str(images.parent / "masks")}
    return ImageFolder(str(images), columns=masks, table=str(images.parent / "table.csv"), **options)


def run_on(folder: Path, source: Any, steps: int, resume: bool = True, allowed: bool = False, **options: Any) -> Any:
    """A run of the tiny tokenizer; the trainer, when it is done."""
    trainer = tiny_trainer(folder, source=source, max_steps=steps, batch_size=3, **options)
    trainer.run(resume=resume, allow_changed_data=allowed)
    return trainer


def refusal(folder: Path, source: Any, **options: Any) -> str:
    """The message of a resumption that is refused, in which nothing of the run may change."""
    before = content_of(folder)
    with pytest.raises(UserError) as caught:
        run_on(folder, source, STEPS + 2, **options)
    assert content_of(folder) == before
    assert "allow-changed-data" in str(caught.value)
    return str(caught.value)


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def warnings_in(folder: Path) -> list[str]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["warning"] for line in lines if "warning" in line]


def with_a_row(images: Path, name: str) -> None:
    with (images.parent / "table.csv").open("a", encoding="utf-8") as file:
        file.write(f"{name},0,a lake\n")


def add(images: Path) -> None:
    for folder in (images, images.parent / "masks"):
        draw(folder / "e.png", 9)
    with_a_row(images, "e.png")


def lose(images: Path) -> None:
    (images / "b.png").unlink()


def rename(images: Path) -> None:
    for folder in (images, images.parent / "masks"):
        (folder / "a.png").rename(folder / "below" / "z.png")
    table = images.parent / "table.csv"
    table.write_text(table.read_text().replace("a.png", "below/z.png"))


def grow(images: Path) -> None:
    draw(images / "below" / "c.png", 20)


def damage(images: Path) -> None:
    os.truncate(images / "d.png", 10)


def change_a_mask(images: Path) -> None:
    draw(images.parent / "masks" / "a.png", 20)


def change_a_caption(images: Path) -> None:
    table = images.parent / "table.csv"
    table.write_text(table.read_text().replace("d.png,3,a hill", "d.png,3,a mountain"))


CHANGES: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "added": (add, ["images: 4 have become 5, 1 added (e.png)"]),
    "lost": (lose, ["images: 4 have become 3, 1 lost (b.png)"]),
    "renamed": (rename, ["images: 1 renamed (a.png -> below/z.png)"]),
    "grown": (grow, ["images: 1 changed (below/c.png: 1,4"]),
    "damaged": (damage, ["images: 4 have become 3, 1 lost (d.png)"]),
    "mask": (change_a_mask, ["columns.mask: 1 changed (a.png: 1,2"]),
    "table": (change_a_caption, ["table: 1 changed (d.png)"]),
    "several": (
        lambda images: (add(images), lose(images), grow(images), None)[-1],
        ["images: 1 added (e.png), 1 lost (b.png), 1 changed (below/c.png: "],
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_named_and_nothing_of_the_run_is_touched(tmp_path: Path, images: Path, change: str) -> None:
    run_on(tmp_path / "run", folder_of(images), STEPS, resume=False)
    act, expected = CHANGES[change]
    act(images)
    told = refusal(tmp_path / "run", folder_of(images))
    lines = [line for line in told.splitlines() if line.startswith("  ")]
    assert [line.startswith(f"  data.source: {one}") for line, one in zip(lines, expected, strict=True)] == [True], told
    assert f"up to step {STEPS}" in told


def test_changes_of_nothing_that_is_used_are_none(tmp_path: Path, images: Path) -> None:
    run_on(tmp_path / "run", folder_of(images), STEPS, resume=False)
    (images / "notes.txt").write_text("no image")
    (images.parent / "masks" / "more.png").write_bytes(b"nobody's mask")
    with_a_row(images, "nobody.png")
    os.utime(images / "a.png", (0, 0))
    assert run_on(tmp_path / "run", folder_of(images), STEPS + 1).state.step == STEPS + 1
    assert warnings_in(tmp_path / "run") == []


def test_accepted_changes_are_told_once_and_belong_to_the_run_from_then_on(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_on(tmp_path / "run", folder_of(images), STEPS, resume=False)
    add(images)
    trainer = tiny_trainer(tmp_path / "run", source=folder_of(images), max_steps=STEPS + 2, batch_size=3)
    trainer.journal.watcher.quiet = False
    trainer.run(resume=True, allow_changed_data=True)
    told = f"the data are not those of step {STEPS}: data.source: images: 4 have become 5, 1 added (e.png)"
    assert warnings_in(tmp_path / "run") == [told]
    assert told in capsys.readouterr().err
    run_on(tmp_path / "run", folder_of(images), STEPS + 3)
    assert warnings_in(tmp_path / "run") == [told]
    (images / "e.png").unlink()
    assert "1 lost (e.png)" in refusal(tmp_path / "run", folder_of(images))


def test_run_on_changed_data_resumes_exactly(tmp_path: Path) -> None:
    for name in ("straight", "stopped"):
        run_on(tmp_path / name, Gradients(7), 2, resume=False)
    straight = run_on(tmp_path / "straight", Gradients(10), 6, allowed=True)
    run_on(tmp_path / "stopped", Gradients(10), 4, allowed=True)
    stopped = run_on(tmp_path / "stopped", Gradients(10), 6)
    assert differences(everything(straight), everything(stopped)) == []


@pytest.mark.parametrize("count", [1, 2, 5, 6, 8, 50])
def test_position_counts_images_seen_whatever_their_number(tmp_path: Path, count: int) -> None:
    seen: list[int] = []

    class Watched(Gradients):
        def __getitem__(self, index: int) -> dict[str, Any]:
            seen.append(index)
            return super().__getitem__(index)

    run_on(tmp_path / "run", Gradients(7), STEPS, resume=False)  # 9 images: in the middle of the second epoch
    trainer = run_on(tmp_path / "run", Watched(count), STEPS + 8, allowed=True)
    stream = BatchLoader(Gradients(count), Transform(), batch_size=3, seed=0).batches(STEPS)
    assert seen == [index for _ in range(8) for index in next(stream)["index"].tolist()]
    assert trainer.state.images == 3 * (STEPS + 8)
    begun = -(3 * STEPS) % count  # what is left of an epoch; after it every image comes once
    for start in range(begun, len(seen) - count + 1, count):
        assert sorted(seen[start : start + count]) == list(range(count))


def test_held_out_images_are_watched_too(tmp_path: Path) -> None:
    options: dict[str, Any] = {"validation": ValidationSettings(every=1, monitor="generator/total", mode="min")}
    run_on(tmp_path / "run", None, STEPS, resume=False, held_out_source=Gradients(3), **options)
    told = refusal(tmp_path / "run", None, held_out_source=Gradients(4), **options)
    assert "  validation.data.source: items: 3 have become 4, 1 added (gradient 3)\n" in told
    run_on(tmp_path / "run", None, STEPS + 1, allowed=True, held_out_source=Gradients(4), **options)
    changed, best = warnings_in(tmp_path / "run")
    assert "validation.data.source: items: 3 have become 4" in changed
    assert "best value so far" in best
    assert "former held-out images" in best


# Sources of somebody's own.


class Plain:
    """Nothing but items."""

    def __init__(self, count: int = 4) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return Gradients()[index]


class Labelled(Plain):
    labels = (0, 1, 2, 3)


class Versioned(Plain):
    """Says of itself what a test wants."""

    def __init__(self, says: Any) -> None:
        super().__init__()
        self.says = says

    def fingerprint(self) -> Any:
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


def test_source_of_ones_own_is_known_by_its_length(tmp_path: Path) -> None:
    run_on(tmp_path / "run", Plain(), STEPS, resume=False)
    assert run_on(tmp_path / "run", Plain(), STEPS + 1).state.step == STEPS + 1
    assert "  data.source: 4 items have become 3\n" in refusal(tmp_path / "run", Plain(3))


@pytest.mark.parametrize("kind", [tuple, np.array, torch.tensor])
def test_source_of_ones_own_is_known_by_its_labels(tmp_path: Path, kind: Callable[[Any], Any]) -> None:
    run_on(tmp_path / "run", Labelled(), STEPS, resume=False)
    other = Labelled()
    other.labels = kind((0, 1, 3, 3))
    assert "  data.source: items: 1 changed (item 2)\n" in refusal(tmp_path / "run", other)


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({"shards": [("0.tar", 7)]}, {"shards": [("0.tar", 8)]}, "shards: 1 changed (0.tar: 7 -> 8 bytes)"),
        ({"set": [("revision", "v1")]}, {"set": [("revision", "v2")]}, "set: 1 changed (revision)"),
        ({"s": [("a", 1), ("b", 2)]}, {"s": [("b", 2), ("a", 1)]}, "s: the same 2 in another order"),
        ({"s": [("a", 1), ("a", 2)]}, {"s": [("a", 1)]}, "s: 2 have become 1, 1 lost (a)"),
        ({"s": [("a", 1)]}, {}, "s: 1 have become 0, 1 lost (a)"),
        ({"s": {"a": 1}.items()}, {"t": {"a": 1}.items()}, "s: 1 have become 0, 1 lost (a)"),
        ({"s": [("caf\udce9", 1)]}, {"s": [("caf\udce8", 1)]}, r"s: 1 renamed (caf\xe9 -> caf\xe8)"),
    ],
)
def test_source_of_ones_own_says_what_it_consists_of(tmp_path: Path, first: Any, second: Any, told: str) -> None:
    run_on(tmp_path / "run", Versioned(first), STEPS, resume=False)
    assert run_on(tmp_path / "run", Versioned(first), STEPS + 1).state.step == STEPS + 1
    assert f"  data.source: {told}\n" in refusal(tmp_path / "run", Versioned(second))


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("v1", "fingerprint() of Versioned gives 'v1': expected a mapping of groups"),
        ({"s": ["a"]}, "fingerprint() of Versioned gives 'a': expected pairs of a name and its mark"),
        ({"s": [("a", 0.5)]}, "gives 0.5: expected as mark of 'a' a size in bytes or a text"),
        ({"s": 3}, "what Versioned consists of cannot be read: TypeError: 'int' object is not iterable"),
        (KeyError("tile"), "what Versioned consists of cannot be read: KeyError: 'tile'"),
    ],
)
def test_what_is_no_fingerprint_is_refused_before_anything_is_trained(tmp_path: Path, says: Any, told: str) -> None:
    with pytest.raises(UserError) as caught:
        run_on(tmp_path / "run", Versioned(says), STEPS, resume=False)
    assert str(caught.value).startswith("data.source: ")
    assert told in str(caught.value)


def test_file_names_that_are_no_text_are_watched(tmp_path: Path, images: Path) -> None:
    odd = os.path.join(os.fsencode(images), b"caf\xe9.png")
    os.rename(images / "a.png", odd)
    source = ImageFolder(str(images))
    run_on(tmp_path / "run", source, STEPS, resume=False)
    assert run_on(tmp_path / "run", source, STEPS + 1).state.step == STEPS + 1
    os.rename(odd, images / "a.png")
    assert r"1 renamed (caf\xe9.png -> a.png)" in refusal(tmp_path / "run", ImageFolder(str(images)))


# Checkpoints of before, and data that lie elsewhere.


def forget_the_data(run: Path) -> None:
    """Makes the checkpoints those of a version that knew nothing of data."""
    for folder in (run / "checkpoints").iterdir():
        state = torch.load(folder / STATE, weights_only=True)
        del state["data"]
        torch.save(state, folder / STATE)
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest["sha256"][STATE] = sha256(folder / STATE)
        (folder / MANIFEST).write_text(json.dumps(manifest))


def test_checkpoint_that_knows_nothing_of_its_data_is_resumed(tmp_path: Path) -> None:
    run_on(tmp_path / "run", Gradients(10), STEPS, resume=False)
    forget_the_data(tmp_path / "run")
    run_on(tmp_path / "run", Gradients(9), STEPS + 1)
    assert warnings_in(tmp_path / "run") == []
    assert "9 have become 8" in refusal(tmp_path / "run", Gradients(8))


def train(images: Path, run: Path, steps: int, **options: Any) -> Any:
    held_out = [f"validation.data.source={{type: image_folder, path: {images.parent / 'masks'}}}"]
    overrides = [f"engine.max_steps={steps}", *held_out, "validation.every=0", "validation.data.transform.crop=none"]
    return smalti.train(TINY, overrides, data=images, out=run, quiet=True, **options)


def test_data_that_lie_elsewhere_are_the_same_data(tmp_path: Path, images: Path) -> None:
    run = tmp_path / "run"
    train(images, run, 2)
    elsewhere = tmp_path / "elsewhere" / "renamed"
    images.parent.joinpath("masks").rename(tmp_path / "former")
    elsewhere.parent.mkdir()
    images.rename(elsewhere)
    (tmp_path / "former").rename(elsewhere.parent / "masks")
    assert train(elsewhere, run, 3, resume=True).step == 3
    assert warnings_in(run) == []
    assert str(elsewhere) in (run / "recipe.yaml").read_text()
    lose(elsewhere)
    elsewhere.rename(tmp_path / "third")
    (elsewhere.parent / "masks").rename(tmp_path / "masks")
    before = content_of(run)
    with pytest.raises(UserError) as caught:
        train(tmp_path / "third", run, 4, resume=True)
    assert "  data.source: images: 4 have become 3, 1 lost (b.png)\n" in str(caught.value)
    assert f"  data.source.path: {elsewhere} -> {tmp_path / 'third'}\n" in str(caught.value)
    assert content_of(run) == before
    assert train(tmp_path / "third", run, 4, resume=True, allow_changed_data=True).step == 4


def test_data_that_lie_elsewhere_and_that_no_checkpoint_knows_are_another_recipe(tmp_path: Path, images: Path) -> None:
    run = tmp_path / "run"
    train(images, run, 2)
    forget_the_data(run)
    images.rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"another recipe.*\n  data\.source\.path: .* -> .*moved\n.*allow-changed-data"):
        train(tmp_path / "moved", run, 3, resume=True)
    assert train(tmp_path / "moved", run, 3, resume=True, allow_changed_data=True).step == 3
    assert "data.source.path" in warnings_in(run)[0]


@pytest.mark.parametrize(("option", "value"), [("columns", "{{mask: {0}/masks}}"), ("table", "{0}/table.csv")])
def test_what_a_source_did_not_have_is_another_recipe_whatever_is_allowed(
    tmp_path: Path, images: Path, option: str, value: str
) -> None:
    smalti.train(TINY, ["engine.max_steps=1"], data=images, out=tmp_path / "run", quiet=True)
    options = ["engine.max_steps=2", f"data.source.{option}={value.format(tmp_path)}"]
    with pytest.raises(UserError, match=rf"another recipe:\n  data\.source\.{option}: None -> "):
        smalti.train(TINY, options, data=images, out=tmp_path / "run", quiet=True, resume=True, allow_changed_data=True)


def test_changed_data_are_allowed_to_resumed_runs_only(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"allow_changed_data .*: add resume \(--resume\)"):
        run_on(tmp_path / "run", None, STEPS, resume=False, allowed=True)
    assert not (tmp_path / "run").exists()
    assert run_on(tmp_path / "run", None, STEPS, resume=True, allowed=True).state.step == STEPS


@pytest.mark.parametrize("allowed", [False, True])
def test_all_processes_decide_the_same(of_two_processes: dict[str, Any], allowed: bool) -> None:
    answers = of_two_processes[f"changed-{allowed}"]
    assert len(answers) == 2
    assert len(set(answers)) == 1
    assert answers[0] == "step 4, warned 1" if allowed else "1 lost (gradient 9)" in answers[0]


# Many files.


class Many(ImageSource):
    """Names without images."""

    def __init__(self, names: list[str], sizes: list[int]) -> None:
        self.names, self.sizes = tuple(names), sizes

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        raise NotImplementedError

    def fingerprint(self) -> Any:
        return {"images": zip(self.names, self.sizes, strict=True)}


def many(count: int, without: int | None = None, larger: int | None = None) -> Fingerprint:
    numbers = [number for number in range(count) if number != without]
    names = [f"{number:08d}.png" for number in numbers]
    return Fingerprint.of(Many(names, [number + 100 * (number == larger) for number in numbers]), "data.source")


def test_a_change_among_many_files_lies_between_two_names() -> None:
    stored = many(20_000).stored()
    assert many(20_000).changes_since(stored) == []
    assert many(20_000, larger=7).changes_since(stored) == [
        "images: 1 of 1,000 ranges of names differ: "
        "from 00000000.png to 00000020.png (20 -> 20 entries, 190 -> 290 bytes)"
    ]
    (lost,) = many(20_000, without=19_999).changes_since(stored)
    assert lost.startswith(
        "images: 20,000 have become 19,999, 1 of 1,000 ranges of names differ: from 00019980.png on (20"
    )
    (added,) = many(20_001).changes_since(stored)
    assert "from 00019980.png on (20 -> 21 entries, " in added
    (fewer,) = many(3).changes_since(stored)
    assert "20,000 have become 3, 1,000 of 1,000 ranges" in fewer


def test_what_is_stored_does_not_grow_with_the_number_of_files() -> None:
    sizes = [len(pickle.dumps(many(count).stored())) for count in (fingerprint.LISTED, 20_000, 200_000)]
    assert max(sizes) < 2**18
    assert sizes[2] < 1.1 * sizes[1]


def test_one_change_more_than_can_be_shown_is_counted(tmp_path: Path, images: Path) -> None:
    stored = Fingerprint.of(ImageFolder(str(images)), "data.source").stored()
    for number in range(5):
        draw(images / f"new-{number}.png", 10 + number)
    (told,) = Fingerprint.of(ImageFolder(str(images)), "data.source").changes_since(stored)
    assert told == "images: 4 have become 9, 5 added (new-0.png, new-1.png, new-2.png and 2 more)"


def test_folder_that_is_not_looked_at_is_known_by_its_names(images: Path) -> None:
    stored = Fingerprint.of(folder_of(images, verify="none"), "data.source").stored()
    assert {mark for name in ("images", "columns.mask") for mark in stored["groups"][name]["marks"]} == {""}
    rename(images)
    (told,) = Fingerprint.of(folder_of(images, verify="none"), "data.source").changes_since(stored)
    assert told == "images: 1 added (below/z.png), 1 lost (a.png)"
