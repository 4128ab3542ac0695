"""Peak memory and error of a large image in tiles: one process a case.

python benchmarks/tiling_memory.py [--size 2048] [--tiles 0 1024 512 256]

The model is the untrained KL-f8 autoencoder with a quarter of its width; the image is a packaged photo, enlarged.
"""

import argparse
import resource
import subprocess
import sys
import time

import torch

import smalti


def one(size: int, tile: int) -> None:
    """Prints added peak memory in MiB, seconds, and the mean difference from the whole image where that fits."""
    torch.manual_seed(0)
    model = smalti.build("vae-kl-f8", ["model.encoder.channels=32", "model.decoder.channels=32"]).eval()
    latent = torch.nn.functional.interpolate(torch.randn(1, 4, 64, 64), size=size // 8, mode="bicubic")
    with torch.inference_mode():
        model.decode(latent[..., :8, :8])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if tile:
            model.enable_tiling(tile)
        began = time.perf_counter()
        image = model.decode(latent)
        seconds = time.perf_counter() - began
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        gap = ""
        if tile and size <= 1024:
            model.disable_tiling()
            whole = model.decode(latent)
            gap = f"{float((image - whole).abs().mean() / whole.abs().mean()):.3f}"
    print(f"| {size} | {tile or 'whole'} | {peak:,.0f} | {seconds:.1f} | {gap or '-'} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--tiles", type=int, nargs="+", default=[0, 1024, 512, 256])
    parser.add_argument("--one", type=int, default=None)
    given = parser.parse_args()
    if given.one is not None:
        one(given.size, given.one)
        return
    print("| side | tile | added peak, MiB | seconds | relative mean difference |\n|---|---|---|---|---|", flush=True)
    for tile in given.tiles:
        words = [sys.executable, __file__, "--size", str(given.size), "--one", str(tile)]
        subprocess.run(words, check=True)


if __name__ == "__main__":
    main()
