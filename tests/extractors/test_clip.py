"""CLIP through transformers: preprocessing, text, weights by folder, and that nothing is random unasked."""

import json

import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("transformers")

from smalti.config import build, config_of
from smalti.extractors import Extractor
from smalti.extractors._images import area_resize
from smalti.extractors.clip import CLIP, REVISION, _tiny
from smalti.registry import UserError

TEXTS = ["a cat", "a much longer text about two dogs", ""]


def image(size=40):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0


@pytest.fixture
def saved(tmp_path):
    """A CLIP of the tiny shapes as transformers saves it, with a tokenizer of letters."""
    from transformers import CLIPModel

    torch.manual_seed(1)
    model = CLIPModel(_tiny()).eval()
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    ids = {token: number for number, token in enumerate(tokens[:-2])} | {tokens[-2]: 256, tokens[-1]: 257}
    (folder / "vocab.json").write_text(json.dumps(ids))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    return folder, model


def test_equals_transformers_own_embeddings_with_clips_normalisation(saved):
    folder, model = saved
    network = CLIP(weights=str(folder))
    # The original feeds CLIP images that it never normalises.
    mean, deviation = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, deviation))
    pixels = ((area_resize(image(), 32, 32) + 1.0) / 2.0 - mean) / deviation
    ids = torch.tensor([[256, 0, 27, 257, 257], [256, 2, 3, 30, 257]])
    with torch.no_grad():
        output = model(input_ids=ids, pixel_values=pixels)
        (embedding,) = network(image())
    torch.testing.assert_close(embedding, output.image_embeds, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(network.embed_text(["ab", "cde"]), output.text_embeds, rtol=1e-5, atol=1e-6)
    assert network.name == f"clip ({folder})"


def test_long_texts_are_cut_and_padding_changes_nothing(saved):
    for network in (CLIP(weights=str(saved[0])), CLIP(weights="random")):
        together = network.embed_text([*TEXTS, "x" * 500])
        alone = torch.cat([network.embed_text([text]) for text in [*TEXTS, "x" * 500]])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.norm(dim=1), torch.ones(4))
        assert not torch.allclose(together[0], together[1])
        assert not together.requires_grad


def test_a_single_text_is_not_a_sequence_of_letters():
    with pytest.raises(ValueError, match="expected a sequence of texts"):
        CLIP(weights="random").embed_text("cat")


def test_a_file_that_lacks_weights_is_refused(saved):
    from safetensors.torch import load_file, save_file

    folder, _ = saved
    tensors = load_file(folder / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"missing or of another shape: visual_projection\.weight"):
        CLIP(weights=str(folder))


def test_what_cannot_be_had_is_a_clear_error():
    with pytest.raises(UserError, match=r"(?s)cannot load CLIP from 'nobody/nothing'.*option 'weights'"):
        CLIP(weights="nobody/nothing")
    with pytest.raises(ValueError, match="revision='main': expected only with the name of a repository"):
        CLIP(revision="main")
    assert len(REVISION) == 40


def test_without_transformers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install 'smalti\[hf\]'"):
        CLIP(weights="random")


def test_built_on_meta_it_is_vit_b_32_and_downloads_nothing():
    with torch.device("meta"):
        network = CLIP()
    assert network.network.config.vision_config.patch_size == 32
    assert sum(buffer.numel() for buffer in network.buffers() if buffer.is_floating_point()) == 151_277_313 + 6
    assert all(buffer.is_meta for buffer in network.network.buffers())


def test_random_one_is_always_the_same_and_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(())
    torch.manual_seed(3)
    first = CLIP(weights="random")
    assert torch.equal(torch.rand(()), expected)
    second = build(config_of(first), Extractor)
    assert torch.equal(first(image())[0], second(image())[0])
    assert torch.equal(first.embed_text(TEXTS), second.embed_text(TEXTS))
    assert first.name == "clip (random weights)"


def test_is_frozen_and_lets_gradients_through_to_the_images():
    network = CLIP(weights="random").double()
    parent = torch.nn.Sequential(network).train()
    assert not any(module.training for module in network.modules())
    assert not parent.state_dict()
    assert not list(parent.parameters())
    x = image(8).double().requires_grad_()
    (slope,) = torch.autograd.grad(network(x)[0][:, 0].sum(), [x])
    assert slope.abs().sum() > 0.0


@pytest.mark.parametrize(("old", "new"), [(8, 4), (6, 12), (5, 3), (7, 7)])
def test_area_resize_keeps_the_mean_and_equals_pooling_of_a_finer_image(old, new):
    x = torch.rand(1, 2, old, old, dtype=torch.float64)
    small = area_resize(x, new, new)
    fine = x.repeat_interleave(new, dim=2).repeat_interleave(new, dim=3)
    torch.testing.assert_close(small, F.avg_pool2d(fine, old))
    torch.testing.assert_close(small.mean(), x.mean())
