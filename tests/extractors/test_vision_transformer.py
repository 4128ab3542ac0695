"""Teachers: the feature each original distils, preprocessing with gradients, frozen and out of the books."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional as F

from smalti.config import build, config_of
from smalti.extractors import Extractor
from smalti.extractors._preprocessing import prepare
from smalti.extractors.dinov2 import DINOv2
from smalti.extractors.vision_transformer import VisionTransformer
from smalti.registry import UserError

GOLDEN = Path(__file__).parents[1] / "golden" / "fqgan" / "semantic_infonce.safetensors"
pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    # loading shows a progress bar; it has nothing to do with what is tested
    import transformers

    monkeypatch.setenv("TQDM_DISABLE", "1")
    transformers.utils.logging.disable_progress_bar()


def golden_teacher(name, folder, drop=""):
    """The tower of the goldens in a folder as on the Hub, loaded as any teacher is; and the golden tensors."""
    with safe_open(GOLDEN, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        (folder / "config.json").write_text(file.metadata()[f"{name}_config"])
    state = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
    kept = {key: value for key, value in state.items() if not drop or drop not in key}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    normalization = "clip" if name == "clip" else "imagenet"
    return VisionTransformer(model=str(folder), resize="nearest", normalization=normalization), tensors


@pytest.mark.parametrize("name", ["clip", "dino"])
def test_class_token_and_preprocessing_equal_fqgan(name, tmp_path):
    """CLIP's token is in front of the final norm, DINOv2's behind it."""
    teacher, tensors = golden_teacher(name, tmp_path)
    images = tensors["io.x"]
    prepared = prepare(images, 224, "nearest", teacher.normalization)
    torch.testing.assert_close(prepared[:, :, ::8, ::8], tensors[f"io.{name}.preprocessed"], atol=1e-6, rtol=1e-6)
    with torch.no_grad():
        (feature,) = teacher(images)
    torch.testing.assert_close(feature, tensors[f"io.{name}.teacher_cls"].flatten(1), atol=2e-5, rtol=1e-5)


def test_a_checkpoint_with_missing_weights_is_refused(tmp_path):
    """transformers fills what is missing with random numbers and a warning that drowns."""
    with pytest.raises(UserError, match="has no weights for"):
        golden_teacher("clip", tmp_path, drop="mlp.fc1")


def test_preprocessing_is_differentiable_and_antialiased():
    images = torch.rand(2, 3, 20, 30, dtype=torch.float64) * 2 - 1
    images.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: prepare(x, 7), (images[:1, :1].detach().requires_grad_(),))
    checkers = (torch.arange(64)[:, None] + torch.arange(64)) % 2 * 2.0 - 1.0
    smooth = prepare(checkers.expand(1, 3, 64, 64), 8, normalization="half")
    assert smooth[..., 1:-1, 1:-1].abs().max() < 0.05, "a pattern finer than the pixels is grey"
    assert prepare(checkers.expand(1, 3, 64, 64), 8, "nearest", "half").abs().min() == 1.0, "picked pixels are not"


def test_preprocessing_keeps_an_image_of_the_right_size_and_spreads_grey():
    images = torch.rand(1, 3, 8, 8) * 2 - 1
    torch.testing.assert_close(prepare(images, 8, normalization="half"), images)
    grey = images[:, :1]
    assert torch.equal(prepare(grey, 5), prepare(grey.expand(-1, 3, -1, -1), 5))
    with pytest.raises(ValueError, match=r"expected \(B, 3, H, W\)"):
        prepare(torch.zeros(1, 2, 8, 8), 8)


def teachers():
    tiny = {"model_type": "vit", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    yield DINOv2(variant="tiny", weights="random", size=28)
    yield VisionTransformer(
        weights="random", config={**tiny, "intermediate_size": 32, "image_size": 32, "patch_size": 16}, size=32
    )
    yield VisionTransformer(
        weights="random",
        config={"model_type": "clip_vision_model", **{k: v for k, v in tiny.items() if k != "model_type"}}
        | {"intermediate_size": 32, "image_size": 32, "patch_size": 16},
        size=32,
        feature="mean",
        normalization="clip",
    )


def test_a_teacher_is_frozen_and_in_no_books():
    for teacher in teachers():
        teacher.train()
        assert not teacher.training
        assert not list(teacher.parameters())
        assert not teacher.state_dict()
        images = (torch.rand(2, 3, 24, 40) * 2 - 1).requires_grad_()
        (feature,) = teacher(images)
        assert feature.ndim == 2
        assert torch.equal(feature, copy.deepcopy(teacher)(images)[0])
        feature.square().sum().backward()
        assert images.grad.abs().sum() > 0.0, "a loss may ask for the gradient to images"
        assert teacher.double()(images.detach().double())[0].dtype == torch.float64, "it moves along"


def test_random_weights_are_always_the_same_and_leave_the_generator_alone():
    state = torch.get_rng_state()
    images = torch.rand(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    first, second = (DINOv2(variant="tiny", weights="random", size=28)(images)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state())


def test_config_rebuilds_a_teacher():
    for teacher in teachers():
        rebuilt = build(config_of(teacher), Extractor)
        images = torch.rand(1, 3, 28, 28)
        assert torch.equal(rebuilt(images)[0], teacher(images)[0])


def test_on_the_meta_device_nothing_is_read():
    with torch.device("meta"):
        DINOv2()
        VisionTransformer(model="nobody/nothing")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "random"}, "expected config"),
        ({}, "expected model"),
        ({"model": "a/b", "config": {"model_type": "vit"}}, "no config"),
    ],
)
def test_what_does_not_go_together_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        VisionTransformer(**options)


def test_impossible_dinov2_is_an_error():
    with pytest.raises(ValueError, match="nobody trained such a model"):
        DINOv2(variant="tiny")
    with pytest.raises(ValueError, match="multiple of the patch size 14"):
        DINOv2(size=32)
    with pytest.raises(ValueError, match="variant='huge'"):
        DINOv2(variant="huge")


def test_an_absent_model_is_a_clear_error(tmp_path):
    with pytest.raises(UserError, match="cannot load the vision model model="):
        VisionTransformer(model=str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=r"config\.model_type='no_such_model'"):
        VisionTransformer(weights="random", config={"model_type": "no_such_model"})


def test_mean_of_the_patches_leaves_the_class_token_out():
    teacher = list(teachers())[2]
    images = torch.rand(1, 3, 32, 32)
    tokens = teacher._frozen.tokens(prepare(images, 32, "bicubic", "clip"))
    assert tokens.shape[1] == 5
    torch.testing.assert_close(teacher(images)[0], F.adaptive_avg_pool1d(tokens[:, 1:].transpose(1, 2), 1)[..., 0])
