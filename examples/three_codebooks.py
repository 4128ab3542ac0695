"""Train a tiny tokenizer with three codebooks and random teachers, then look at what each codebook has learned.

    python examples/three_codebooks.py runs/three-codebooks --steps 300

writes ``alone.png`` into the folder: the photo, its reconstruction, and the reconstruction from each codebook alone,
the others replaced by their mean code. The recipe is the shipped ``fqgan-triple-f8`` in its tiny form. Teachers with
random weights teach nothing of the world; with ``smalti train fqgan-triple-f8`` they come from the Hub.
"""

import argparse
from pathlib import Path

import torch

import smalti
from smalti.data.grid import grid
from smalti.data.loader import evaluation_batches, to_device
from smalti.data.photos import Photos
from smalti.data.transforms import Transform


def main() -> None:
    """Trains, then writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--size", type=int, default=128, help="side of the square of the photo that is shown")
    arguments = parser.parse_args()

    smalti.train("tiny-fqgan-triple-f8", [f"engine.max_steps={arguments.steps}"], out=arguments.out)
    model = smalti.load(arguments.out)

    photo = Photos(include=["chelsea"])
    batch = next(iter(evaluation_batches(photo, Transform(size=arguments.size, crop="center"), 1)))
    image = to_device(dict(batch), torch.device("cpu"))["image"]
    with torch.no_grad():
        code = model.encode(image)
        alone = [model.decode_only(code.latent, name, others="mean") for name in model.codebook_sizes]
        rows = torch.cat([image, model.decode(code.latent), *alone])
    grid(rows, columns=len(rows)).save(arguments.out / "alone.png")
    print(f"{arguments.out / 'alone.png'}: photo, reconstruction, {', '.join(model.codebook_sizes)}")  # noqa: T201


if __name__ == "__main__":
    main()
