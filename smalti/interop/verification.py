"""Proof of a conversion: bit-equal round trips, and the same image, or the same tokens, through both networks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from smalti.interop import Twin
from smalti.interop._table import Table
from smalti.interop.conversion import Imported, export_state
from smalti.models._condition import TextPrefix
from smalti.models._saved import SavedModel
from smalti.models._token_model import TokenModel
from smalti.models.autoencoder import Autoencoder
from smalti.registry import UserError

TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Check:
    """One comparison on random inputs.

    Args:
        against: what the model was compared with.
        largest: difference of encodings and reconstructions, or of logits, in units of their largest value.
        places: what was compared -> its difference.
        inputs: what went through both.
    """

    against: str
    largest: float
    places: Mapping[str, float]
    inputs: str = "a random image"


def same_tensors(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> list[str]:
    """Keys that one of two state dicts lacks, or that differ in a single bit."""
    odd = sorted(ours.keys() ^ theirs.keys())
    return odd + [
        key
        for key, value in ours.items()
        if key in theirs and not (value.shape == theirs[key].shape and torch.equal(value, theirs[key]))
    ]


def check_round_trip(imported: Imported) -> int:
    """Exports an imported model again and compares every tensor with the file's, bit by bit.

    Returns:
        How many tensors were compared.

    Raises:
        UserError: if one differs.
    """
    kind = imported.format
    table = kind.table(kind.layout(imported.checkpoint.state.keys()))
    exported = export_state(imported.model, kind).state
    source = {key: value for key, value in imported.checkpoint.state.items() if table.why_dropped(key) is None}
    made = {key: value for key, value in exported.items() if key not in table.constants}
    # An older spelling goes out in the present one: compared under our names it is the same tensor.
    odd = same_tensors(_canonical(made, table), _canonical(source, table))
    if odd:
        raise UserError(f"not verified, nothing is written: the round trip changes {', '.join(odd)}")
    return len(source)


def _canonical(state: Mapping[str, Tensor], table: Table) -> dict[str, Tensor]:
    return {name: rule.take(value) for key, value in state.items() for name, rule in table.ours(key)}


@torch.no_grad()
def compare(model: SavedModel, other: SavedModel | Twin, against: str, seed: int = 0) -> Check:
    """Runs a random image, or random tokens, through both.

    Args:
        model: in evaluation mode.
        other: another of ours, or its twin.
        against: what ``other`` is called.
        seed: of the inputs.

    Raises:
        UserError: if they differ by more than rounding.
    """
    if isinstance(model, TokenModel):
        places, inputs = _token_differences(model, other, seed), "random tokens"
    else:
        places, inputs = _image_differences(model, other, seed), Check.inputs
    check = Check(against=against, largest=max(places.values()), places=places, inputs=inputs)
    if not check.largest < TOLERANCE:
        raise UserError(f"not verified, nothing is written: {inputs}, {against} differ by {check.largest:.1e}")
    return check


def _image_differences(model: Any, other: Any, seed: int) -> dict[str, float]:
    images = random_images(model, seed)
    encoded, latent = encoding(model, images)
    encoded_there = encoding(other, images)[0] if isinstance(other, Autoencoder) else other.encode(images)
    return {
        "encoding": _difference(encoded, encoded_there),
        "reconstruction": _difference(model.decode(latent), other.decode(latent)),
    }


def _token_differences(model: TokenModel, other: Any, seed: int) -> dict[str, float]:
    batch = random_tokens(model, seed)
    ours, theirs = (network.training_forward(batch).logits.values() for network in (model, other))
    return {
        f"logits of {name}": _difference(one, two) for name, one, two in zip(model.codebooks, ours, theirs, strict=True)
    }


def random_tokens(model: TokenModel, seed: int = 0) -> dict[str, Tensor]:
    """A seeded batch of two: ``indices`` (2, G, h, w), and the condition that the model takes."""
    generator = torch.Generator().manual_seed(seed)
    planes = [torch.randint(size, (2, *model.grid), generator=generator) for size in model.codebooks.values()]
    batch = {"indices": torch.stack(planes, dim=1)}
    if model.num_classes:
        batch["label"] = torch.randint(model.num_classes, (2,), generator=generator)
    if isinstance(model.condition, TextPrefix):
        batch["text"] = torch.randn(2, model.condition.length, model.condition.text_width, generator=generator)
    return batch


def random_images(model: Autoencoder, seed: int = 0) -> Tensor:
    """Two seeded images of 4 x 4 latent positions, with shape (2, C, H, W) in [-1, 1], in the model's dtype."""
    side = 4 * model.factor
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(2, model.image_channels, side, side, generator=generator) * 2.0 - 1.0
    return images.to(model.last_layer.dtype)


def encoding(model: Autoencoder, images: Tensor) -> tuple[Tensor, Tensor]:
    """Moments (KL), what is quantized (VQ) or the latent, and the latent that goes to the decoder."""
    output = model.encode(images)
    if output.posterior is not None:
        return torch.cat([output.posterior.mean, output.posterior.logvar], dim=1), output.posterior.mode()
    if output.codebooks:
        return torch.cat([record.z for record in output.codebooks.values()], dim=1), output.latent
    return output.latent, output.latent


def _difference(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    return float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1e-12))
