"""Tokens of a known distribution, and the parts of a store: what is held out, and how much there is to know."""

import math

import numpy as np
import pytest

from smalti.data._held_out import Places
from smalti.data.known_tokens import KnownTokens
from smalti.data.tokens import Tokens
from tests.tokens.stores import small


def test_entropy_is_that_of_the_tokens() -> None:
    source = KnownTokens(codebooks={"a": 4, "b": 3}, grid=(3, 3), num_classes=2, count=4000, certainty=0.7)
    indices = np.stack([source[index]["indices"] for index in range(len(source))])
    for plane, (name, size) in enumerate(source.codebooks.items()):
        of_first = indices[::2, plane]  # one class: at each place the shares of all codes
        shares = np.stack([(of_first == code).mean(axis=0) for code in range(size)])
        bits = -(shares * np.log2(shares)).sum(axis=0)
        assert bits.mean() == pytest.approx(source.entropy[name], abs=0.03)
    assert KnownTokens(certainty=0.0).entropy["codebook"] == pytest.approx(math.log2(16))


def test_preferences_are_shared_and_items_are_not() -> None:
    train, held_out, other = KnownTokens(seed=0), KnownTokens(seed=1), KnownTokens(preferences=1)
    assert not np.array_equal(train[0]["indices"], held_out[0]["indices"])
    alike = np.mean([(train[i]["indices"] == held_out[i]["indices"]).mean() for i in range(50)])
    unlike = np.mean([(train[i]["indices"] == other[i]["indices"]).mean() for i in range(50)])
    assert unlike < 0.2 < 0.8 < alike


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 9])
@pytest.mark.parametrize("every", [2, 3, 20])
def test_parts_are_all_items_and_share_none(count: int, every: int) -> None:
    parts = {part: list(Places(count, part, every)) for part in ("all", "train", "held_out")}
    assert parts["all"] == list(range(count))
    assert parts["held_out"] == list(range(0, count, every))
    assert sorted(parts["train"] + parts["held_out"]) == parts["all"]


@pytest.mark.parametrize("views", ["random", "first", "all"])
def test_parts_of_a_store_keep_names_labels_and_tokens_together(views: str, tmp_path) -> None:
    store = small(tmp_path / "store", views=2)
    for part, wanted in (("held_out", [0, 3, 6]), ("train", [1, 2, 4, 5])):
        source = Tokens(str(tmp_path / "store"), views, part, 3)
        copies = 2 if views == "all" else 1
        assert len(source) == len(source.names) == len(source.labels) == copies * len(wanted)
        for number in range(len(source)):
            place, view = divmod(number, copies)
            assert np.array_equal(source[number]["indices"], store.read(wanted[place], view)["indices"])
            assert source[number]["label"] == source.labels[number] == wanted[place] % 3
            assert source.names[number].startswith(f"{wanted[place]}.png")
        with pytest.raises(IndexError):
            source[len(source)]
