"""The discriminator beside a tokenizer, for fine-tuning: PatchGAN has the same keys everywhere."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from smalti.config import build
from smalti.discriminators.patch import Patch
from smalti.nn.meta import on_meta_device
from smalti.registry import UserError


def import_discriminator(state: Mapping[str, Tensor], image_channels: int) -> Patch:
    """A PatchGAN from its tensors ``main.{i}``; channels beyond those of an image are a condition.

    Args:
        state: name -> tensor.
        image_channels: of the model it judges.

    Raises:
        UserError: if it is another network, or a tensor is missing, unexpected or of a wrong shape.
    """
    if "main.0.weight" not in state or "main.0.bias" not in state:
        known = ", ".join(list(state)[:3])
        raise UserError(f"--keep-discriminator: expected a PatchGAN, whose keys begin with 'main.0'; found {known}")
    with on_meta_device():
        discriminator = build(_config(state, image_channels), Patch)
    expected = {key: tuple(value.shape) for key, value in discriminator.state_dict().items()}
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
        raise UserError(f"--keep-discriminator: does not fit the layout of PatchGAN:\n{listed}")
    discriminator.load_state_dict(dict(state), assign=True)
    return discriminator.eval()


def _config(state: Mapping[str, Tensor], image_channels: int) -> dict[str, Any]:
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
