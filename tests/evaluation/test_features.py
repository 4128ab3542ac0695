"""Metrics of features under a protocol: one network, its resize and layer, named after its weights, with cautions."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from smalti.evaluation._metrics import metrics_of, moments_file
from smalti.evaluation.passing import measure
from smalti.evaluation.protocol import Protocol, protocol_named
from smalti.registry import UserError
from tests.evaluation.test_passing import question
from tests.evaluation.tokenizers import photos


@pytest.mark.parametrize(
    ("name", "resize"), [("pytorch-fid", "half_pixel"), ("clean", "pillow_bicubic"), ("adm", "tf")]
)
def test_the_protocol_sets_network_splits_and_neighbours(name: str, resize: str) -> None:
    found = metrics_of(protocol_named(name), ["fid", "kid", "inception_score", "precision_recall"], False, "random")
    networks = {id(metric.extractor): metric.extractor for metric in found.values()}  # type: ignore[attr-defined]
    assert [network.resize for network in networks.values()] == [resize] * len(networks)
    assert len(networks) == 2  # at the layer of the protocol, and at one of their own
    assert found["inception_score"].splits == 10  # type: ignore[attr-defined]
    assert found["precision_recall"].k == 3  # type: ignore[attr-defined]


def test_random_weights_are_in_the_name_and_few_images_are_said(tmp_path: Path) -> None:
    asked = question(photos(tmp_path / "in"), metrics=["fid", "psnr"], weights="random")
    result = measure(asked)
    name = "fd_random_inception"
    assert set(result.numbers) == {name, f"{name}_low", f"{name}_high", "psnr"}
    assert "fewer than 10,000" in result.cautions["fid"]
    assert "without full rank" in result.cautions["fid"]


def test_asking_for_fid_without_the_file_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"nowhere\.pth"):
        measure(question(photos(tmp_path / "in"), metrics=["fid"], weights=str(tmp_path / "nowhere.pth")))


def test_stored_moments_are_taken_by_path_and_hash(tmp_path: Path) -> None:
    path = tmp_path / "moments.npz"
    np.savez(path, mu=np.zeros(2048), sigma=np.eye(2048))
    digits = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    assert moments_file(f"{path}#{digits}") == str(path)
    protocol = Protocol(name="mine", crop="none", reference=f"{path}#{digits}")
    made = metrics_of(protocol, ["fid"], False, "random")["fid"]
    assert made.source == str(path)  # type: ignore[attr-defined]
    for reference, says in (
        (f"{path}#{'0' * 12}", "SHA-256"),
        (str(path), "FILE#SHA256"),
        ("no.npz#aa", "No such file"),
    ):
        with pytest.raises(UserError, match=says):
            moments_file(reference)
