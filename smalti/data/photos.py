"""Photos that are already on the disk: those that scikit-image and scikit-learn ship inside their packages.

Nothing is downloaded. Colour photos with stated terms only:

* scikit-image: ``astronaut`` (NASA, public domain), ``chelsea`` (Stefan van der Walt, CC0), ``coffee`` (Rachel
  Michetti, CC0), ``hubble_deep_field`` (NASA, free to use in the public domain), ``immunohistochemistry`` (no known
  copyright restrictions), ``retina`` (Haggstrom, CC0 / public domain), ``rocket`` (SpaceX, public domain).
* scikit-learn: ``china`` (danielbuechele, CC BY 2.0, https://www.flickr.com/photos/danielbuechele/6061409035),
  ``flower`` (vultilion, CC BY 2.0, https://www.flickr.com/photos/vultilion/6056698931).

The stereo pair of motorcycles in scikit-image states no terms and is left out.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from smalti.data import ImageSource
from smalti.data._fingerprint import Entries, sized
from smalti.registry import UserError, suggest

_FILES = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "coffee": ("skimage", "data/coffee.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "hubble_deep_field": ("skimage", "data/hubble_deep_field.jpg"),
    "immunohistochemistry": ("skimage", "data/ihc.png"),
    "retina": ("skimage", "data/retina.jpg"),
    "rocket": ("skimage", "data/rocket.jpg"),
}


class Photos(ImageSource):
    """Nine colour photos between 300 x 451 and 1411 x 1411 pixels, decoded once and kept in memory.

    Hold a photo out with ``exclude: [chelsea]`` in the training data and ``include: [chelsea]`` in the validation.

    Args:
        include: names of the photos to use, in this order; None for all, in alphabetical order.
        exclude: names of photos to leave out.

    Raises:
        UserError: for an unknown name, if none is left, or if the package that ships a photo is missing.
    """

    def __init__(self, include: Sequence[str] | None = None, exclude: Sequence[str] = ()) -> None:
        for option, chosen in (("include", include or ()), ("exclude", exclude)):
            for name in chosen:
                if name not in _FILES:
                    raise UserError(f"{option}={name!r}: no photo of that name{suggest(name, _FILES)}")
        wanted = tuple(_FILES) if include is None else tuple(dict.fromkeys(include))
        self.names = tuple(name for name in wanted if name not in exclude)
        if not self.names:
            raise UserError(f"photos: nothing is left of include={include!r} after exclude={exclude!r}")
        self._paths = tuple(_locate(name) for name in self.names)
        self._decoded: dict[int, Image.Image] = {}

    def __len__(self) -> int:
        """Number of photos."""
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Photo ``index`` as ``{"image": Pillow image}`` in RGB."""
        if index not in self._decoded:
            with Image.open(self._paths[index]) as image:
                self._decoded[index] = image.convert("RGB")
        return {"image": self._decoded[index]}

    def fingerprint(self) -> Mapping[str, Entries]:
        """The photos with the sizes of their files."""
        return {"images": sized(self.names, self._paths)}


def _locate(name: str) -> Path:
    """Where the package has the photo; the package itself is not imported."""
    package, file = _FILES[name]
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / file).is_file():
            return Path(folder) / file
    distribution = {"skimage": "scikit-image", "sklearn": "scikit-learn"}[package]
    raise UserError(f"the photo {name!r} comes with {distribution}: pip install 'smalti[demo]'")
