"""The autoencoder: encoder, bottleneck, decoder."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Self

from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from torch.nn import functional as F

from smalti.bottlenecks import Bottleneck
from smalti.models import Decoder, Encoder, Model
from smalti.models._pretrained import CONFIG, WEIGHTS, fetch, load_model, save_model
from smalti.outputs import AutoencoderOutput, Batch, BottleneckOutput
from smalti.registry import UserError


class Autoencoder(Model, PyTorchModelHubMixin, library_name="smalti", tags=["autoencoder", "image-tokenizer"]):
    """Images -> features -> latent -> reconstruction; with a quantizer it is an image tokenizer.

    Sizes must be divisible by ``factor``, the side of the square of pixels that one latent position stands for;
    ``reconstruct`` takes any size.

    Args:
        encoder: images to features.
        bottleneck: features to a latent, which is what is stored.
        decoder: latents to images.

    Raises:
        ValueError: if the parts' widths or factors do not fit each other.
    """

    judged = "reconstruction"

    def __init__(self, encoder: Encoder, bottleneck: Bottleneck, decoder: Decoder) -> None:
        super().__init__()
        _check_fit(encoder, bottleneck, decoder)
        self.encoder = encoder
        self.bottleneck = bottleneck
        self.decoder = decoder

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
    def last_layer(self) -> nn.Parameter:
        """The weight of the decoder's last convolution."""
        return self.decoder.last_layer

    @property
    def provides(self) -> frozenset[str]:
        """The optional fields that the bottleneck fills."""
        return self.bottleneck.provides

    @property
    def output_keys(self) -> Mapping[str, Collection[str]]:
        """Names of the codebooks; there are no heads."""
        return {"codebooks": tuple(self.codebook_sizes), "heads": ()}

    def training_forward(self, batch: Batch) -> AutoencoderOutput:
        """Reconstructs ``batch["image"]`` (B, C, H, W); ``batch["noise"]`` is what a sampling bottleneck would draw."""
        self._check_images(batch["image"])
        bottleneck: BottleneckOutput = self.bottleneck(self.encoder(batch["image"]), batch.get("noise"))
        return AutoencoderOutput(reconstruction=self.decoder(bottleneck.latent), bottleneck=bottleneck)

    def forward(self, images: Tensor) -> AutoencoderOutput:
        """Reconstructs images (B, C, H, W) in [-1, 1]."""
        return self.training_forward({"image": images})

    def encode(self, images: Tensor) -> BottleneckOutput:
        """The latent (B, C', h, w), tokens and posterior of images (B, C, H, W) in [-1, 1].

        Raises:
            UserError: if H or W is not divisible by ``factor``.
        """
        self._check_images(images)
        output: BottleneckOutput = self.bottleneck(self.encoder(images))
        return output

    def decode(self, latent: Tensor) -> Tensor:
        """Images (B, C, h * factor, w * factor), not clamped, of latents (B, C', h, w)."""
        images: Tensor = self.decoder(latent)
        return images

    def decode_indices(self, indices: Tensor) -> Tensor:
        """Images (B, C, h * factor, w * factor) of tokens (B, G, h, w), one of G codebooks each.

        In evaluation mode equal to ``decode(encode(images).latent)`` bit for bit.

        Raises:
            UserError: if the bottleneck has no codes, or an index is outside its codebook.
        """
        sizes = self.codebook_sizes
        if not sizes:
            raise UserError(f"{type(self.bottleneck).__name__} is continuous: it has no tokens, use decode(latent)")
        if indices.ndim != 4 or indices.shape[1] != len(sizes):
            raise UserError(f"indices with shape {tuple(indices.shape)}: expected (B, {len(sizes)}, h, w)")
        if indices.is_floating_point():
            raise UserError(f"indices of type {indices.dtype}: expected whole numbers")
        indices = indices.long()  # token stores hold narrower types
        for group, (name, size) in enumerate(sizes.items()):
            low, high = (int(value) for value in indices[:, group].aminmax())
            if low < 0 or high >= size:
                raise UserError(f"indices of {name!r} from {low} to {high}: expected 0 to {size - 1}")
        return self.decode(self.bottleneck.lookup(indices))

    def reconstruct(self, images: Tensor) -> Tensor:
        """The reconstruction of images (B, C, H, W) of any size, same shape, not clamped.

        Right and bottom are padded to the next multiple of ``factor``, by reflection if the image is large enough and
        by repeating the border if not, and cut off again.
        """
        height, width = images.shape[-2:]
        bottom, right = -height % self.factor, -width % self.factor
        mode = "reflect" if bottom < height and right < width else "replicate"
        padded = F.pad(images, (0, right, 0, bottom), mode=mode) if bottom or right else images
        return self.decode(self.encode(padded).latent)[..., :height, :width]

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
        if images.ndim != 4 or images.shape[1] != self.image_channels:
            raise UserError(f"images with shape {tuple(images.shape)}: expected (B, {self.image_channels}, H, W)")
        height, width = images.shape[-2:]
        if height % self.factor or width % self.factor:
            raise UserError(
                f"images of {height} x {width} pixels: expected both divisible by the factor {self.factor}; "
                "reconstruct() pads and crops"
            )

    def _save_pretrained(self, save_directory: Path) -> None:
        save_model(self, save_directory)

    @classmethod
    def from_pretrained(  # type: ignore[override]  # no model_kwargs: the saved configuration is complete
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        trust_code: bool = False,
        map_location: str = "cpu",
    ) -> Self:
        """Loads what ``save_pretrained`` or ``push_to_hub`` wrote, in evaluation mode and in the dtype it was saved in.

        Args:
            pretrained_model_name_or_path: a folder, or a repository ``owner/name`` on the Hugging Face Hub.
            force_download: download even if the cache has it.
            token: of the Hub.
            cache_dir: of the Hub's downloads.
            local_files_only: use the cache only.
            revision: branch, tag or commit on the Hub.
            trust_code: whether the configuration may name classes outside smalti, whose import runs their code.
            map_location: device to load to.

        Raises:
            UserError: naming the file that is missing, damaged, or does not fit.
        """
        source = str(pretrained_model_name_or_path)
        options = {
            "force_download": force_download,
            "token": token,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
            "revision": revision,
        }
        config, weights = (fetch(source, name, options) for name in (CONFIG, WEIGHTS))
        return load_model(cls, config, weights, trust_code=trust_code, map_location=map_location)


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
