"""What makes images without being given any, as the playground sees it: a number of sliders, and a function of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image
from torch import Tensor

from smalti.data.grid import grid

SIDE = 96  # a made image with fewer pixels is enlarged to about so many


@dataclass(frozen=True, kw_only=True)
class Slider:
    """A number that a reader chooses.

    Args:
        name: of the option.
        label: in words.
        low: smallest value.
        high: largest value.
        value: at first.
        step: between two values.
    """

    name: str
    label: str
    low: float
    high: float
    value: float
    step: float


@dataclass(frozen=True, kw_only=True)
class Maker:
    """A generator of any kind: a GAN's, or a model of tokens with the tokenizer that they belong to.

    Args:
        draw: seed, count, class (None: all of them in turn) and the sliders' values -> images (count, C, H, W) in
            [-1, 1]; the same for the same arguments.
        num_classes: 0 if there are none.
        sliders: what else may be chosen.
    """

    draw: Callable[[int, int, int | None, Mapping[str, float]], Tensor]
    num_classes: int = 0
    sliders: Sequence[Slider] = field(default_factory=tuple)

    def sheet(self, seed: int, count: int, label: int | None, values: Mapping[str, float]) -> Image.Image:
        """Images in a square; a class that the model does not have is left to it.

        Args:
            seed: of the first image.
            count: of images.
            label: the class, or None.
            values: of the sliders of all makers, by name; those that are not its own are left out.
        """
        own = {slider.name: float(values.get(slider.name, slider.value)) for slider in self.sliders}
        chosen = label if label is not None and label < self.num_classes else None
        images = self.draw(seed, count, chosen, own).float().cpu()
        factor = max(1, SIDE // min(images.shape[-2:]))
        images = images.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)
        return grid(images, columns=round(count**0.5 + 0.49))


def sliders_of(makers: Sequence[Maker]) -> list[Slider]:
    """The sliders of all makers, each name once."""
    return list({slider.name: slider for maker in makers for slider in maker.sliders}.values())
