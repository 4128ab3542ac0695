"""The same tokenizer on the same images under every protocol: how far numbers move that nobody trained for.

    python benchmarks/protocols.py runs/quickstart --data held-out/ [--metrics psnr,ssim]

prints a table in Markdown.
"""

import argparse

import torch

from smalti.data.image_folder import ImageFolder
from smalti.evaluation.opening import open_adapter
from smalti.evaluation.passing import Question, measure
from smalti.evaluation.protocol import protocol_named, shipped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--metrics", default="psnr,ssim,bits_per_pixel")
    given = parser.parse_args()
    adapter, source = open_adapter(given.model), ImageFolder(given.data)
    metrics, rows, names = given.metrics.split(","), [], []
    for name in shipped():
        question = Question(
            adapter=adapter,
            source=source,
            path=given.data,
            protocol=protocol_named(name),
            device=torch.device("cpu"),
            metrics=metrics,
        )
        numbers = measure(question).numbers
        names += [number for number in numbers if number not in names]
        rows.append((name, question.protocol.hash, numbers))
    print("| protocol | hash | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 2))
    for name, hash, numbers in rows:
        values = (f"{numbers[number]:.4g}" if number in numbers else "-" for number in names)
        print(f"| `{name}` | {hash} | " + " | ".join(values) + " |")


if __name__ == "__main__":
    main()
