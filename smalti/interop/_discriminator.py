"""The discriminator beside a tokenizer, for fine-tuning: PatchGAN, or LlamaGen's and FQGAN's ``stylegan``."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from smalti.config import build
from smalti.discriminators import Discriminator
from smalti.nn.meta import on_meta_device
from smalti.registry import UserError

BLUR = torch.tensor([1.0, 2.0, 1.0])  # the filter of all blocks of a stylegan, which is computed here


def import_discriminator(state: Mapping[str, Tensor], image_channels: int) -> Discriminator:
    """A PatchGAN from its tensors ``main.{i}``, or a ``stylegan`` from its ``blocks.{i}``.

    Channels of a PatchGAN beyond those of an image are a condition.

    Args:
        state: name -> tensor.
        image_channels: of the model it judges.

    Raises:
        UserError: if it is another network, or a tensor is missing, unexpected or of a wrong shape.
    """
    if {"main.0.weight", "main.0.bias"} <= state.keys():
        title, config = "PatchGAN", _patch(state, image_channels)
    elif {"blocks.0.weight", "final_conv.0.bias"} <= state.keys():
        title, config = "stylegan", _stylegan(state, image_channels)
        state = _without_blurs(state)
    else:
        known = ", ".join(list(state)[:3])
        raise UserError(
            "--keep-discriminator: expected a PatchGAN, whose keys begin with 'main.0', or the stylegan of LlamaGen "
            f"and FQGAN, whose keys begin with 'blocks.0'; found {known}"
        )
    with on_meta_device():
        shapes = build(config, Discriminator).state_dict()  # type: ignore[type-abstract]
    expected = {key: tuple(value.shape) for key, value in shapes.items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    problems = [f"missing {key}" for key in expected if key not in found]
    problems += [f"unexpected {key}" for key in found if key not in expected]
    problems += [
        f"{key} has shape {found[key]}, expected {shape}"
        for key, shape in expected.items()
        if key in found and found[key] != shape
    ]
    if problems:
        listed = "\n".join(f"  {line}" for line in problems)
        raise UserError(f"--keep-discriminator: does not fit the layout of {title}:\n{listed}")
    with torch.random.fork_rng(devices=[]):  # building draws initial weights: the caller's numbers stay
        discriminator: Discriminator = build(config, Discriminator)  # type: ignore[type-abstract]
    discriminator.load_state_dict(dict(state), assign=True)
    return discriminator.eval()


def _without_blurs(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A stylegan's tensors but its filters, which must be what smalti computes with."""
    blurs = {key for key in state if key.endswith(".downsample.0.f")}
    for key in blurs:
        if state[key].shape != BLUR.shape or not torch.equal(state[key].to(BLUR), BLUR):
            raise UserError(f"--keep-discriminator: {key} is {state[key].tolist()}: expected {BLUR.tolist()}")
    return {key: value for key, value in state.items() if key not in blurs}


def _stylegan(state: Mapping[str, Tensor], image_channels: int) -> dict[str, Any]:
    halvings = sum(key.endswith(".conv_res.bias") for key in state)
    return {
        "type": "stylegan",
        "image_size": 4 * 2 ** min(max(halvings, 1), 8),
        "in_channels": image_channels,
        "channels": len(state["final_conv.0.bias"]),
    }


def _patch(state: Mapping[str, Tensor], image_channels: int) -> dict[str, Any]:
    convolutions = [
        key for key, value in state.items() if re.fullmatch(r"main\.[0-9]+\.weight", key) and value.ndim == 4
    ]
    if any(key.endswith(".running_mean") for key in state):
        norm = "batch"
    else:
        norm = "actnorm" if any(key.endswith(".loc") for key in state) else "none"
    return {
        "type": "patch",
        "in_channels": image_channels,
        "channels": len(state["main.0.bias"]),
        "layers": max(len(convolutions) - 2, 1),
        "norm": norm,
        "condition_channels": max(state["main.0.weight"].shape[1] - image_channels, 0),
    }
