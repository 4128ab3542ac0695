"""Interop: checkpoints of other projects, in and out; one declarative key table each.

A format is one file here. It declares how its tensors are named, which of them are dropped and why, and what it cannot
express; recognition, inference of sizes, translation, checks and files are the same for all.
"""

from abc import abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol

from pydantic import Field
from torch import Tensor, nn

from smalti.interop._codebooks import heads_of, under_usual_name
from smalti.interop._table import Table
from smalti.registry import Part

Weights = Literal["auto", "raw", "ema"]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What must be known of a network before its keys can be translated.

    Args:
        levels: number of resolutions.
        encoder_attention: whether the encoder's middle has attention.
        decoder_attention: whether the decoder's middle has.
        codebook: name of the only codebook, None if there is none, or several.
        drawn: whether its codes are drawn by logits (Gumbel softmax), and not the nearest ones.
        spatial: whether the decoder is normalised by the latent (MoVQ).
    """

    levels: int
    encoder_attention: bool = True
    decoder_attention: bool = True
    codebook: str | None = None
    drawn: bool = False
    spatial: bool = False


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What tensors do not show; the defaults are the published values.

    Args:
        weights: ``auto`` prefers averaged weights where there are any; ``raw`` or ``ema``.
        heads: attention heads of transformers; None: the published number (FQGAN: 8; FAR and GPT: width / 64, 32 in
            LlamaGen's 3B).
        grid: side of the grid of tokens that a generator draws; None: 16, of images with 256 pixels.
        scaling_factor: of the latents of a KL autoencoder; None: what a config beside the file says, else the
            published one (0.18215 for Stable Diffusion's layout), else none.
    """

    weights: Weights = "auto"
    heads: Annotated[int, Field(ge=1)] | None = None
    grid: Annotated[int, Field(ge=1)] | None = None
    scaling_factor: Annotated[float, Field(gt=0.0)] | None = None


class Twin(Protocol):
    """The same network in another implementation."""

    def encode(self, images: Tensor) -> Tensor:
        """Moments (B, 2 C, h, w) of a KL autoencoder, what a VQ one quantizes (B, d, h, w)."""

    def decode(self, latent: Tensor) -> Tensor:
        """Images (B, C, H, W) of a latent that is quantized already."""


class Format(Part):
    """Base of all foreign formats.

    ``title`` is what people call it; ``suffixes`` are the file names it is written to (none: a folder). ``asks`` names
    the fields of ``ImportOptions`` that mean something to it, beyond ``weights``. ``by_name_only`` says that its files
    have the keys of another format's and mean something else: only who names it gets it.
    """

    kind = "format"
    package = "smalti.interop"
    title: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = (".pt", ".safetensors")
    asks: ClassVar[frozenset[str]] = frozenset()
    by_name_only: ClassVar[bool] = False

    @abstractmethod
    def recognises(self, keys: Collection[str]) -> bool:
        """Whether a state dict with these keys is of this family, importable or not."""

    def refuses(self, keys: Collection[str]) -> str | None:
        """Why a state dict of this family cannot be imported, or None."""
        return None

    @abstractmethod
    def layout(self, keys: Collection[str]) -> Layout:
        """Levels and middles of a state dict with these foreign keys."""

    @abstractmethod
    def table(self, layout: Layout) -> Table:
        """The key table, for both directions."""

    def infer(self, shapes: Mapping[str, tuple[int, ...]], options: ImportOptions) -> dict[str, Any] | None:
        """The configuration of a model that is no autoencoder; None: it is one, whose sizes all formats show alike.

        Args:
            shapes: of its tensors, under our names.
            options: what the user said.

        Raises:
            UserError: if a tensor that shows a size is missing.
        """
        return None

    def complete(
        self, config: dict[str, Any], beside: Mapping[str, Any], options: ImportOptions, where: str
    ) -> dict[str, Any]:
        """Adds to an inferred model configuration what tensors do not show.

        Args:
            config: of an autoencoder, as inferred.
            beside: the original's configuration, if one was found; else empty.
            options: what the user said.
            where: of the configuration, for messages.

        Raises:
            UserError: if the configuration asks for what smalti has not, or contradicts the tensors.
        """
        return config

    def misfit(self, config: Mapping[str, Any]) -> str | None:
        """Why a model of ours with this configuration is none of those that the format is for; None if it is one."""
        parts = [config.get(part, {}).get("type") for part in ("encoder", "decoder")]
        if config["type"] != "autoencoder":
            return f"it is of the type {config['type']!r}, and no autoencoder"
        return None if parts == ["conv", "conv"] else "its encoder or decoder is not of the type 'conv'"

    def as_read(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A configuration with those names of codebooks that an importer gives, since the format holds none."""
        return under_usual_name(config)

    def unseen(self, config: Mapping[str, Any]) -> ImportOptions:
        """What must be said of a model with this configuration when its tensors are read again."""
        return ImportOptions(heads=heads_of(config))

    def unsupported(self, config: Mapping[str, Any]) -> list[str]:
        """Reasons why a model of ours with this configuration has no place in the format, beyond its keys."""
        return []

    def notes(self, config: Mapping[str, Any]) -> list[str]:
        """What someone who goes on with an imported model should know."""
        return []

    @abstractmethod
    def write(self, path: Path, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
        """Writes a state dict under foreign names, and the configuration the original needs."""

    def twin(self, model: nn.Module, config: Mapping[str, Any], beside: Mapping[str, Any]) -> Twin | None:
        """The same network in another implementation, for a numeric check; None: there is none here.

        Args:
            model: of ours.
            config: its configuration.
            beside: the original's configuration, if one was found; else empty.
        """
        return None
