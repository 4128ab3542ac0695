"""How good the digits of ``far-digits`` are, beside real ones: the table of ``docs/generate.md``.

    python -m benchmarks.generated_digits runs/far-digits

A logistic regression that has seen the real training digits says which class a digit is of; the sliced Wasserstein
distance of samples from held-out digits stands beside that of real training digits from them, the floor; and the
distance to the nearest training digit tells copies, which are nearer than held-out digits are.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import smalti
from smalti.cli._token_sampling import token_images
from smalti.data.digits import Digits
from smalti.interop.decoding import kept_with, tokenizer_for
from smalti.metrics.sliced_wasserstein import sliced_wasserstein

CLASSES = 10


def real(part: str) -> tuple[Tensor, Tensor]:
    """Digits (N, 1, 8, 8) in [-1, 1] and their classes (N,), in an order that is drawn."""
    source = Digits(part)  # type: ignore[arg-type]
    pixels = np.stack([np.asarray(source[index]["image"]) for index in range(len(source))])
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))
    images = torch.from_numpy(pixels).float().unsqueeze(1) / 127.5 - 1.0
    return images[order], torch.tensor(list(source.labels))[order]


def nearest(images: Tensor, others: Tensor) -> float:
    """Mean over images of the root mean squared difference from the nearest of ``others``, in [-1, 1]."""
    distances = torch.cdist(images.flatten(1), others.flatten(1)).amin(dim=1)
    return float(distances.mean()) / images[0].numel() ** 0.5


def main() -> None:
    """Prints the table."""
    from sklearn.linear_model import LogisticRegression

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--count", type=int, default=500, help="samples, at most as many as there are held-out digits")
    parser.add_argument("--guidance", type=float, nargs="*", default=[1.0, 1.5, 2.0, 3.0])
    options = parser.parse_args()
    count = options.count
    (train, train_classes), (held_out, held_out_classes) = real("train"), real("held_out")
    judge = LogisticRegression(max_iter=5000).fit(train.flatten(1).numpy(), train_classes.numpy())

    def row(name: str, images: Tensor, classes: Tensor) -> None:
        right = judge.score(images.flatten(1).numpy(), classes.numpy())
        distance = float(sliced_wasserstein(images[:count], held_out[:count]))
        print(f"| {name} | {right:.1%} | {distance:.4f} | {distance / floor:.2f} | {nearest(images, train):.3f} |")

    floor = float(sliced_wasserstein(train[:count], held_out[:count]))
    print("| digits | asked class | sliced Wasserstein | of the floor | nearest training digit |")
    print("| --- | --- | --- | --- | --- |")
    print(f"| real, training | | {floor:.4f} | 1.00 | |")
    print(f"| real, held out | {judge.score(held_out.flatten(1).numpy(), held_out_classes.numpy()):.1%} | | | ", end="")
    print(f"{nearest(held_out, train):.3f} |")
    model = smalti.load(options.run)
    tokenizer = tokenizer_for(model, kept_with(options.run))
    with torch.no_grad():
        made = tokenizer.reconstruct(held_out).clamp(-1.0, 1.0)
    row("reconstructed, held out", made, held_out_classes)
    for guidance in options.guidance:
        made = torch.cat(list(token_images(model, tokenizer, seed=0, count=count, batch=250, guidance=guidance)))
        row(f"drawn, guidance {guidance:g}", made, torch.arange(count) % CLASSES)


if __name__ == "__main__":
    main()
