"""Models and runs that earlier versions saved: the same tokens and pictures, and saved again in new words."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import smalti
from smalti.assembly.recipe import load_recipe
from smalti.config import build, config_of
from smalti.models import Model
from smalti.models._earlier import upgraded
from smalti.registry import UserError

SAVED = Path(__file__).parent / "saved_0_1"
NAMES = {"vector_quantizer": ["code"], "vector_quantizer_ema": ["codebook"], "factorized": ["visual", "semantic"]}


def same_as_recorded(model: smalti.Autoencoder, place: Path) -> None:
    recorded = load_file(place / "io.safetensors")
    with torch.no_grad():
        code = model.encode(recorded["images"])
        assert code.indices is not None
        assert torch.equal(code.indices, recorded["indices"])
        assert torch.equal(code.latent, recorded["latent"])
        made = model.decode_indices(code.indices)
        torch.testing.assert_close(made, recorded["reconstruction"])  # its last bit depends on the number of threads
        assert torch.equal(made, model.decode(code.latent))


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_0_1_computes_what_it_did(name: str, tmp_path: Path) -> None:
    model = smalti.load(SAVED / name)
    same_as_recorded(model, SAVED / name)
    assert list(model.codebook_sizes) == NAMES[name]
    model.save_pretrained(tmp_path / "again")
    written = json.loads((tmp_path / "again" / "config.json").read_text())["model"]["bottleneck"]
    assert written["type"] == "tokens"
    assert upgraded(written) == (written, {})
    same_as_recorded(smalti.load(tmp_path / "again"), SAVED / name)


def test_the_checkpoint_of_a_run_of_0_1_can_be_used() -> None:
    same_as_recorded(smalti.load(f"{SAVED / 'run'}@2"), SAVED / "run")


def test_options_of_the_codebook_are_kept() -> None:
    quantizer = config_of(smalti.load(SAVED / "vector_quantizer"))["bottleneck"]["codebooks"]["code"]["quantizer"]
    assert (quantizer["init"], quantizer["normalize"], quantizer["revival"]) == ("kmeans", True, {"patience": 5})
    second = config_of(smalti.load(SAVED / "factorized"))["bottleneck"]["codebooks"]["semantic"]["quantizer"]
    assert (second["estimator"], second["codebook_gradient"]) == ("gradient_copy", True)


@pytest.mark.parametrize("name", ["vector_quantizer", "factorized", "run@2"])
def test_training_may_start_from_it(name: str, tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "cli" / "tiny.yaml").read_text()
    model, rest = text.index("model:"), text.index("objective:")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"{text[:model]}model: {{init: {SAVED / name}}}\n{text[rest:]}")
    from smalti.assembly.assemble import build_model

    made, saved = build_model(load_recipe(recipe)).state_dict(), smalti.load(str(SAVED / name)).state_dict()
    assert made.keys() == saved.keys()
    assert all(torch.equal(made[key], value) for key, value in saved.items())


def test_a_network_of_ones_own_around_it_is_found_too() -> None:
    config = json.loads((SAVED / "vector_quantizer" / "config.json").read_text())["model"]
    wrapped, names = upgraded({"type": "x.Mine", "tokenizer": config})
    assert wrapped["tokenizer"]["bottleneck"]["type"] == "tokens"
    assert names["tokenizer.bottleneck.codebook."] == "tokenizer.bottleneck.branches.code.quantizer."
    assert build(upgraded(config)[0], Model)


def test_an_option_that_it_never_had_is_still_a_mistake(tmp_path: Path) -> None:
    shutil.copytree(SAVED / "vector_quantizer", tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    config["model"]["bottleneck"]["codebok_size"] = 8
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match="codebok_size"):
        smalti.load(tmp_path / "model")
