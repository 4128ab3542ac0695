"""The hash of weights: what tells one network from another of its name."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def hash_of(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values of tensors, sorted by name."""
    found = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
