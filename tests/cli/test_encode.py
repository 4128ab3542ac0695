"""``smalti encode``: one array for each image, whole or not at all, never over what is there."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import smalti
from smalti.cli._files import write_npz
from smalti.cli.reconstruct import open_image
from tests.cli.conftest import Verb


def test_tokens_are_those_of_the_model(smalti_cli: Verb, trained: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "tokens.npz"
    result = smalti_cli("encode", trained, "--data", photos, "--out", out)
    assert result.exit_code == 0, result.output
    model = smalti.load(trained)
    with np.load(out) as found:
        assert sorted(found) == ["a.png", "below/b.png"]
        for name, tokens in found.items():
            expected = model.encode(open_image(photos / name, 3)).indices
            assert expected is not None
            assert tokens.dtype == np.int32
            assert np.array_equal(tokens, expected[0].numpy())
            model.decode_indices(torch.from_numpy(tokens).long()[None])


@pytest.mark.parametrize("what", [[], ["--latents"]])
def test_latents_that_are_not_finite_are_not_written(
    what: list[str], smalti_cli: Verb, trained: Path, photos: Path, tmp_path: Path
) -> None:
    model = smalti.load(trained)
    next(model.encoder.parameters()).data.fill_(math.nan)
    model.save_pretrained(tmp_path / "spoilt")
    out = tmp_path / "tokens.npz"
    result = smalti_cli("encode", tmp_path / "spoilt", "--data", photos, "--out", out, *what)
    assert result.exit_code == 2
    assert "a.png: its latent is not finite" in result.stderr
    assert not out.exists()


def test_latents_on_request(smalti_cli: Verb, trained: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "latents.npz"
    assert smalti_cli("encode", trained, "--data", photos, "--out", out, "--latents", "--size", 16).exit_code == 0
    with np.load(out) as found:
        assert {array.shape for array in found.values()} == {(4, 4, 4)}
        assert {array.dtype for array in found.values()} == {np.dtype(np.float32)}


def test_a_file_is_replaced_only_when_told_to(smalti_cli: Verb, trained: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "tokens.npz"
    out.write_text("precious")
    refused = smalti_cli("encode", trained, "--data", photos, "--out", out)
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert out.read_text() == "precious"
    assert smalti_cli("encode", trained, "--data", photos, "--out", out, "--force").exit_code == 0
    with np.load(out) as found:
        assert len(found) == 2


def test_an_interrupted_file_leaves_the_former_one(tmp_path: Path) -> None:
    out = tmp_path / "tokens.npz"
    out.write_text("precious")

    def half() -> Iterator[tuple[str, np.ndarray]]:
        yield "a", np.zeros(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_npz(out, half())
    assert out.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [out]
