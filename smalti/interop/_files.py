"""Writing a foreign state dict."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from smalti.writing import whole


def write_state(path: Path, state: Mapping[str, Tensor], container: str) -> None:
    """A safetensors file with the tensors alone, or a pickle with them under the name ``container``.

    Args:
        path: the suffix decides.
        state: name -> tensor.
        container: what the original's loader asks for.
    """
    # Every tensor by itself: safetensors refuses shared memory, and a pickled view would carry the whole of it.
    own = {key: value.detach().cpu().clone().contiguous() for key, value in state.items()}
    with whole(path) as unfinished:
        if path.suffix == ".safetensors":
            save_file(own, unfinished, metadata={"format": "pt"})
        else:
            torch.save({container: own}, unfinished)
