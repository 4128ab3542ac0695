"""Vision models of the package transformers: found, or built at random, and frozen."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smalti.registry import UserError

Setting = int | float | str | bool


class Frozen:
    """Holds a network outside of ``nn.Module``'s bookkeeping: in no state dict, parameter count or optimizer.

    Its parameters stay parameters: models of the package may ask themselves for them, to learn their own dtype.

    Args:
        network: to hold, or None while only shapes are wanted.
    """

    def __init__(self, network: nn.Module | None) -> None:
        self.network = None if network is None else network.eval().requires_grad_(False)

    def apply(self, function: Callable[[Tensor], Tensor]) -> None:
        """Moves or casts the network as ``nn.Module._apply`` would its children."""
        if self.network is not None:
            self.network._apply(function)  # type: ignore[no-untyped-call]

    def tokens(self, images: Tensor) -> Tensor:
        """The last hidden state with shape (B, 1 + N, W) of prepared images (B, 3, size, size)."""
        if self.network is None:
            raise RuntimeError("built on the meta device: there are no weights to compute with")
        weight = next(self.network.parameters())
        output = self.network(images.to(weight.dtype))
        tokens: Tensor = output.last_hidden_state
        return tokens


def on_meta_device() -> bool:
    """Whether modules are being built without memory, to check a recipe: then nothing is read or downloaded."""
    return torch.empty(0).is_meta


def pretrained(model: str, revision: str | None, option: str) -> nn.Module:
    """The vision model of a repository on the Hub or of a local folder; of a two-tower model, the vision tower.

    Raises:
        UserError: if transformers is not installed or the model cannot be had.
    """
    transformers = _package()
    try:
        config = transformers.AutoConfig.from_pretrained(model, revision=revision)
        config = getattr(config, "vision_config", config)
        made, info = transformers.AutoModel.from_pretrained(
            model, config=config, revision=revision, output_loading_info=True
        )
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        hint = "" if Path(model).exists() else "; without a net, give the path of a local copy"
        raise UserError(f"cannot load the vision model {option}={model!r}: {first}{hint}") from error
    # The package fills holes with random numbers. A pooler behind the last hidden state is not used here.
    absent = {*map(str, info["missing_keys"]), *map(str, info["mismatched_keys"])}
    holes = sorted(key for key in absent if not key.startswith("pooler."))
    if holes:
        raise UserError(f"{option}={model!r} has no weights for {', '.join(holes[:3])} ({len(holes)} tensors)")
    network: nn.Module = made.float()
    return network


def random_model(config: Mapping[str, Setting], seed: int = 0) -> nn.Module:
    """A model of this architecture with random weights, always the same.

    Args:
        config: ``model_type`` and the fields of its configuration class, as in a ``config.json``.
        seed: of the weights.

    Raises:
        UserError: if transformers is not installed or knows no such model.
    """
    transformers = _package()
    options = dict(config)
    kind = options.pop("model_type", None)
    try:
        described = transformers.AutoConfig.for_model(kind, **options)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made: nn.Module = transformers.AutoModel.from_config(described)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"config.model_type={kind!r}: cannot build it: {error}") from error
    return made


def _package() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise UserError("a vision model needs the package transformers: pip install 'smalti[hf]'") from error
    return transformers
