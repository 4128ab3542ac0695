"""The digits of scikit-learn: its pixels and labels, two parts that share nothing."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from smalti.data.digits import Digits


def test_pixels_and_labels_are_those_of_scikit_learn() -> None:
    ours, theirs = Digits(), load_digits()
    assert len(ours) == len(theirs.images) == 1797
    for index in range(0, len(ours), 97):
        item = ours[index]
        assert item["label"] == theirs.target[index]
        np.testing.assert_allclose(np.asarray(item["image"]) * (16 / 255), theirs.images[index], atol=0.04)


def test_parts_share_nothing_and_hold_all_classes() -> None:
    train, held_out = Digits("train"), Digits("held_out")
    assert not set(train.names) & set(held_out.names)
    assert {*train.names, *held_out.names} == set(Digits().names)
    assert (len(train), len(held_out)) == (1198, 599)
    for part in (train, held_out):
        counts = np.bincount([part[index]["label"] for index in range(len(part))])
        assert counts.min() > 0.08 * len(part)


def test_other_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="part='test'"):
        Digits("test")  # type: ignore[arg-type]
