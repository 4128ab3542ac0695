"""The autoencoder: encoder, bottleneck, decoder."""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from smalti.bottlenecks import Bottleneck
from smalti.models import Decoder, Encoder
from smalti.models._heads import FeatureHead, HeadOptions
from smalti.models._latents import LatentScale
from smalti.models._pieces import Pieces
from smalti.models._range import look_at_range
from smalti.models._saved import SavedModel
from smalti.nn.padding import pad_to_multiple
from smalti.outputs import AutoencoderOutput, Batch, BottleneckOutput
from smalti.registry import UserError, suggest


class Autoencoder(SavedModel, library_name="smalti", tags=["autoencoder", "image-tokenizer"]):
    """Images -> features -> latent -> reconstruction; with a quantizer it is an image tokenizer.

    Sizes must be divisible by ``factor``, the side of the square of pixels that one latent position stands for;
    ``reconstruct`` takes any size.

    Args:
        encoder: images to features.
        bottleneck: features to a latent, which is what is stored.
        decoder: latents to images.
        heads: name -> what is predicted from one codebook's latent, to be compared with a teacher; training only.
        latents: scale and shift that a generator of latents should see; ``latents.apply(latent)``, never applied here.

    Raises:
        ValueError: if the parts' widths or factors do not fit each other, or a head's codebook does not exist.
    """

    judged = "reconstruction"

    def __init__(
        self,
        encoder: Encoder,
        bottleneck: Bottleneck,
        decoder: Decoder,
        heads: Mapping[str, HeadOptions] | None = None,
        latents: LatentScale | None = None,
    ) -> None:
        super().__init__()
        _check_fit(encoder, bottleneck, decoder)
        if latents is not None:
            latents.check(bottleneck.latent_channels)
        self.latents = latents
        self.encoder = encoder
        self.bottleneck = bottleneck
        self.decoder = decoder
        self._pieces = Pieces(decoder.factor)
        self._looked = False
        self.heads = nn.ModuleDict()
        self._codebook_of_head: dict[str, str] = {}
        for name, options in (heads or {}).items():
            self._add_head(name, options)

    def _add_head(self, name: str, options: HeadOptions) -> None:
        channels = self.bottleneck.codebook_channels
        if options.codebook not in channels:
            raise ValueError(
                f"heads.{name}.codebook={options.codebook!r}: no such codebook{suggest(options.codebook, channels)}"
            )
        if not name.isidentifier() or hasattr(nn.ModuleDict, name):
            raise ValueError(f"heads: name {name!r}: expected letters, digits and '_', and no word that torch uses")
        self.heads[name] = FeatureHead(channels[options.codebook], options)
        self._codebook_of_head[name] = options.codebook

    @property
    def factor(self) -> int:
        """Pixels per latent position, along each side."""
        return self.decoder.factor

    @property
    def image_channels(self) -> int:
        """Channels of the images."""
        return self.encoder.image_channels

    @property
    def codebook_sizes(self) -> Mapping[str, int]:
        """Name -> number of codes, in the order of ``indices``; empty for a continuous bottleneck."""
        return self.bottleneck.codebook_sizes

    @property
    def codebook_terms(self) -> Mapping[str, frozenset[str]]:
        """Name of a codebook -> short names of the losses over records that mean something for it."""
        return self.bottleneck.codebook_terms

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the decoder's last convolution."""
        return self.decoder.last_layer

    @property
    def provides(self) -> frozenset[str]:
        """The optional fields that the bottleneck fills."""
        return self.bottleneck.provides

    @property
    def output_keys(self) -> Mapping[str, Collection[str]]:
        """Names of the codebooks and of the heads."""
        return {"codebooks": tuple(self.codebook_terms), "heads": tuple(self.heads)}

    def training_forward(self, batch: Batch) -> AutoencoderOutput:
        """Reconstructs ``batch["image"]`` (B, C, H, W); ``batch["noise"]`` is what a sampling bottleneck would draw."""
        self._check_images(batch["image"])
        bottleneck: BottleneckOutput = self.bottleneck(self._features(batch["image"]), batch.get("noise"))
        read = {name: bottleneck.codebooks[of].latent for name, of in self._codebook_of_head.items()}
        return AutoencoderOutput(
            reconstruction=self.decode(bottleneck.latent),
            bottleneck=bottleneck,
            heads={name: head(read[name]) for name, head in self.heads.items()},
        )

    def forward(self, images: Tensor) -> AutoencoderOutput:
        """Reconstructs images (B, C, H, W) in [-1, 1]."""
        return self.training_forward({"image": images})

    def encode(self, images: Tensor) -> BottleneckOutput:
        """The latent (B, C', h, w), tokens and posterior of images (B, C, H, W) in [-1, 1].

        In evaluation mode the first images are looked at: those of [0, 1] are warned of.

        Raises:
            UserError: if H or W is not divisible by ``factor``, or the first images look like 0 to 255.
        """
        self._check_images(images)
        output: BottleneckOutput = self.bottleneck(self._features(images))
        return output

    def decode(self, latent: Tensor) -> Tensor:
        """Images (B, C, h * factor, w * factor), not clamped, of latents (B, C', h, w).

        Raises:
            UserError: for anything else, as the whole output of ``encode``.
        """
        channels = self.decoder.latent_channels
        _check_tensor("latent", latent, f"(B, {channels}, h, w)")
        if latent.ndim != 4 or latent.shape[1] != channels:
            raise UserError(f"latent with shape {tuple(latent.shape)}: expected (B, {channels}, h, w)")
        images: Tensor = self.decoder(latent) if self.training else self._pieces.decode(self.decoder, latent)
        return images

    def _features(self, images: Tensor) -> Tensor:
        features: Tensor = self.encoder(images) if self.training else self._pieces.encode(self.encoder, images)
        return features

    def decode_indices(self, indices: Tensor) -> Tensor:
        """Images (B, C, h * factor, w * factor) of tokens (B, G, h, w), one of G codebooks each.

        In evaluation mode equal to ``decode(encode(images).latent)`` bit for bit.

        Raises:
            UserError: if the bottleneck has no codes, or an index is outside its codebook.
        """
        sizes = self.codebook_sizes
        if not sizes:
            raise UserError(f"{type(self.bottleneck).__name__} is continuous: it has no tokens, use decode(latent)")
        _check_tensor("indices", indices, f"(B, {len(sizes)}, h, w)")
        if indices.ndim != 4 or indices.shape[1] != len(sizes):
            raise UserError(f"indices with shape {tuple(indices.shape)}: expected (B, {len(sizes)}, h, w)")
        if indices.is_floating_point():
            raise UserError(f"indices of type {indices.dtype}: expected whole numbers")
        indices = indices.long()  # token stores hold narrower types
        for group, (name, size) in enumerate(sizes.items()):
            low, high = (int(value) for value in indices[:, group].aminmax()) if indices.numel() else (0, 0)
            if low < 0 or high >= size:
                raise UserError(f"indices of {name!r} from {low} to {high}: expected 0 to {size - 1}")
        return self.decode(self.bottleneck.lookup(indices))

    def decode_only(
        self, latent: Tensor, names: str | Sequence[str], others: Literal["zero", "mean"] = "zero"
    ) -> Tensor:
        """Images (B, C, h * factor, w * factor) of some codebooks alone: what each of several has learned.

        Args:
            latent: with shape (B, C', h, w), of ``encode``.
            names: the codebook or codebooks to keep.
            others: what stands for the others: ``zero``, or the ``mean`` of their codes.

        Raises:
            UserError: if a codebook does not exist.
        """
        channels = self.bottleneck.codebook_channels
        kept = [names] if isinstance(names, str) else list(names)
        for name in kept:
            if name not in channels:
                raise UserError(f"no codebook {name!r}{suggest(name, channels)}")
        if others not in {"zero", "mean"}:
            raise UserError(f"others={others!r}: expected 'zero' or 'mean'")
        mask = torch.cat([torch.full((width,), name in kept) for name, width in channels.items()]).to(latent.device)
        stand_in = (
            self.bottleneck.mean_latent().to(latent) if others == "mean" else torch.zeros_like(latent[0, :, 0, 0])
        )
        return self.decode(torch.where(mask[:, None, None], latent, stand_in[:, None, None]))

    def reconstruct(self, images: Tensor) -> Tensor:
        """The reconstruction of images (B, C, H, W) of any size, same shape, not clamped.

        Right and bottom are padded to the next multiple of ``factor``, by reflection if the image is large enough and
        by repeating the border if not, and cut off again.
        """
        _check_tensor("images", images, f"(B, {self.image_channels}, H, W)")
        height, width = images.shape[-2:]
        return self.decode(self.encode(pad_to_multiple(images, self.factor)).latent)[..., :height, :width]

    def enable_tiling(self, tile_size: int = 512, overlap: float = 0.25) -> None:
        """Lets encoder and decoder work on overlapping tiles: images of any size in the memory of a tile.

        In evaluation mode only. Features are blended in front of the bottleneck, which quantizes once. Each tile has
        normalisation statistics and attention of its own, so results differ from those of the whole image, unless it
        fits a tile.

        Args:
            tile_size: side of a tile in pixels, a multiple of ``factor``.
            overlap: fraction of a side that neighbours share, over which they are blended; in [0, 1).

        Raises:
            UserError: for another size or overlap.
        """
        self._pieces.set_tiles(tile_size, overlap)

    def disable_tiling(self) -> None:
        """Back to whole images."""
        self._pieces.tile = None

    def enable_slicing(self) -> None:
        """Lets encoder and decoder work on one image of a batch after the other, in evaluation mode."""
        self._pieces.slicing = True

    def disable_slicing(self) -> None:
        """Back to whole batches."""
        self._pieces.slicing = False

    def noise_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """(C', h, w) for images of ``image_shape`` (C, H, W) if the bottleneck samples, else None."""
        if "posterior" not in self.bottleneck.provides:
            return None
        _, height, width = image_shape
        return (self.bottleneck.latent_channels, height // self.factor, width // self.factor)

    def update(self, outputs: Sequence[AutoencoderOutput]) -> None:
        """Lets the bottleneck change its state after a successful step, from all micro-batches' detached outputs."""
        self.bottleneck.update([output.bottleneck for output in outputs])

    def _check_images(self, images: Tensor) -> None:
        _check_tensor("images", images, f"(B, {self.image_channels}, H, W)")
        if images.ndim != 4 or images.shape[1] != self.image_channels:
            raise UserError(f"images with shape {tuple(images.shape)}: expected (B, {self.image_channels}, H, W)")
        if not images.is_floating_point():
            raise UserError(
                f"images of {images.dtype}: expected numbers in [-1, 1], as smalti.data.loader.to_device gives"
            )
        height, width = images.shape[-2:]
        if height % self.factor or width % self.factor:
            raise UserError(
                f"images of {height} x {width} pixels: expected both divisible by the factor {self.factor}; "
                "reconstruct() pads and crops"
            )
        if not (self.training or self._looked):
            self._looked = look_at_range(images)


def _check_tensor(name: str, value: object, shape: str) -> None:
    """Refuses what is no tensor: an array, a list, a path, the whole output of ``encode``."""
    if isinstance(value, Tensor):
        return
    hint = "; its field 'latent' or 'indices' is one" if isinstance(value, BottleneckOutput) else ""
    raise UserError(f"{name}: a {type(value).__name__}, expected a tensor {shape}{hint}")


def _check_fit(encoder: Encoder, bottleneck: Bottleneck, decoder: Decoder) -> None:
    pairs = [
        ("bottleneck.in_channels", bottleneck.in_channels, "encoder.out_channels", encoder.out_channels),
        ("decoder.latent_channels", decoder.latent_channels, "bottleneck.latent_channels", bottleneck.latent_channels),
        ("decoder.factor", decoder.factor, "encoder.factor", encoder.factor),
        ("decoder.image_channels", decoder.image_channels, "encoder.image_channels", encoder.image_channels),
    ]
    problems = [f"{name}={value}: expected {other}={wanted}" for name, value, other, wanted in pairs if value != wanted]
    if problems:
        raise ValueError("; ".join(problems))
