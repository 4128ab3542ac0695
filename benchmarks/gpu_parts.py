"""The parts of ``benchmarks.gpu``, one a process: ``python -m benchmarks.gpu_parts NAME --out FILE``."""

import argparse
import importlib.util
import json
import statistics
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import ROOT, write
from smalti.bench.measure import seconds_of

CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "patch_size": 16,
    "image_size": 224,
}
STEPS = {
    "step-shipped": (),
    "step-channels-last": ("engine.channels_last=true",),
    "step-compiled": ("engine.channels_last=true", "engine.compile={parts}"),
    "step-frozen": ("engine.channels_last=true", "engine.compile={parts}", "engine.frozen=auto"),
}


class Found:
    """What a part has found: a file that has each number as soon as it is known."""

    def __init__(self, place: Path) -> None:
        self.place, self.values = place, {}

    def put(self, name: str, value: Any) -> None:
        self.values[name] = value
        write(self.place, json.dumps(self.values, default=str))


def roofs(found: Found, device: torch.device, tiny: bool) -> None:
    """The card, and what it can do at all."""
    from smalti.bench.recipe import roofs as rates

    on_gpu = device.type == "cuda"
    found.put("card", torch.cuda.get_device_name() if on_gpu else f"a CPU, {torch.get_num_threads()} threads")
    found.put("torch", torch.__version__)
    if on_gpu:
        facts = torch.cuda.get_device_properties(device)
        found.put("memory_gib", facts.total_memory / 2**30)
        found.put("processors", facts.multi_processor_count)
    measured: dict[str, float] = {}
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        matrix, convolution = rates(device, dtype)
        measured |= {f"TFLOP/s of a {name} product": matrix, f"TFLOP/s of a {name} 3x3 convolution": convolution}
        found.put("roofs", measured)
    one = torch.empty((2**20 if tiny else 2**29), device=device, dtype=torch.bfloat16).normal_()
    other = torch.empty_like(one)
    seconds = median(lambda: other.copy_(one), device)
    found.put("roofs", measured | {"GB/s of a copy": 2 * one.numel() * 2 / seconds / 1e9})


def step(name: str, found: Found, device: torch.device, tiny: bool) -> None:
    """A step of FQGAN's triple tokenizer, as ``smalti bench step --recipe`` takes it."""
    from smalti.bench.recipe import measure_recipe

    recipe = "tiny-fqgan-triple-f16" if tiny else "fqgan-triple-f16"
    parts = "[decoder.head.conv]" if tiny else "[encoder, decoder]"  # a small one is enough to show that it is compiled
    changes = [*teachers(tiny), "engine.precision=bf16", *(change.format(parts=parts) for change in STEPS[name])]
    report = measure_recipe(recipe, changes, 32 if tiny else None, 2 if tiny else None, device, 1 if tiny else 5)
    found.put("step", asdict(report))
    found.put("changes", changes)


def teachers(tiny: bool) -> list[str]:
    """Networks of random weights in place of what would be downloaded; in plain torch if transformers is missing."""
    if importlib.util.find_spec("transformers") is None:
        small = ", layers: 1, size: 32" if tiny else ""
        widths = {"dino": 32 if tiny else 384, "clip": 32 if tiny else 768}
        plain = "{{type: benchmarks.plain_vit.PlainViT, width: {}{}}}"
        found = [f"objective.teachers.{name}={plain.format(width, small)}" for name, width in widths.items()]
        return ["tiny=null", *found, *random_lpips(tiny)]  # its tiny form has options of other teachers
    if tiny:
        return []
    return [
        "objective.teachers.dino={type: dinov2, variant: small, weights: random, resize: nearest}",
        f"objective.teachers.clip={{type: vision_transformer, weights: random, config: {json.dumps(CLIP)}, "
        "normalization: clip, resize: nearest}",
        *random_lpips(tiny),
    ]


def random_lpips(tiny: bool) -> list[str]:
    return [] if tiny else ["objective.generator.perceptual={type: lpips, extractor: {type: lpips, weights: random}}"]


def kernels(found: Found, device: torch.device, tiny: bool) -> None:
    """Kernels of the quantizer and of GroupNorm: milliseconds beside plain torch, and their error."""
    for name, measure in (*quantizer_kernels(device, tiny), *norm_kernels(device, tiny)):
        try:
            found.put(name, measure())
        except Exception:  # the next one may run
            found.put(f"{name} failed", {"milliseconds": float("nan"), "path": traceback.format_exc(limit=-2)[-300:]})


def quantizer_kernels(device: torch.device, tiny: bool) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    tokens, codes = (64, 128) if tiny else (8192, 16384)
    for channels in (8, 64, 256):
        yield f"entropy, d {channels}", lambda channels=channels: entropy(tokens, codes, channels, device)
        yield f"nearest code, d {channels}", lambda channels=channels: nearest(tokens, codes, channels, device)


def entropy(tokens: int, codes: int, channels: int, device: torch.device) -> dict[str, Any]:
    """Forward and backward; its error is that of the gradients against float64, on an eighth of the tokens."""
    from smalti.nn.soft_assignment import assign_codes, path

    z, codebook = unit_rows(tokens, channels, device), unit_rows(codes, channels, device)

    def run(z: Tensor, codebook: Tensor, temperature: float = 0.01) -> tuple[Tensor, ...]:
        leaves = z.detach().requires_grad_(), codebook.detach().requires_grad_()
        given = assign_codes(*leaves, temperature=temperature)
        spread = -(given.mean_probability * (given.mean_probability + 1e-5).log()).sum()
        return torch.autograd.grad(given.entropy.mean() - spread, leaves)

    def textbook() -> tuple[Tensor, ...]:
        leaves = z.detach().requires_grad_(), codebook.detach().requires_grad_()
        log_p = (-(torch.cdist(*leaves).square()) / 0.01).log_softmax(dim=1)
        p = log_p.exp()
        mean = p.mean(dim=0)
        total = -(p * log_p).sum(dim=1).mean() + (mean * (mean + 1e-5).log()).sum()
        return torch.autograd.grad(total, leaves)

    few = z[: max(tokens // 8, 1)]
    pairs = zip(run(few, codebook), run(few.double(), codebook.double()), strict=True)
    error = max(float((one.double() - other).norm() / other.norm()) for one, other in pairs)
    against = {"a textbook": 1000 * median(textbook, device)}
    row = {"milliseconds": 1000 * median(lambda: run(z, codebook), device), "against": against, "error": error}
    return row | {"path": path(device, z.dtype, channels + 1), "peak_mib": peak(lambda: run(z, codebook), device)}


def nearest(tokens: int, codes: int, channels: int, device: torch.device) -> dict[str, Any]:
    """The nearest of all codes; its error is the share of tokens that get another code than in float64."""
    from smalti.nn.code_search import nearest_code

    z, codebook = unit_rows(tokens, channels, device), unit_rows(codes, channels, device)
    few = z[: max(tokens // 8, 1)]
    wrong = nearest_code(few, codebook) != (few.double() @ codebook.double().T).argmax(dim=1)
    against = {"a product and argmax": 1000 * median(lambda: (z @ codebook.T).argmax(dim=1), device)}
    run = {"milliseconds": 1000 * median(lambda: nearest_code(z, codebook), device), "against": against}
    return run | {"error": float(wrong.double().mean())}


def unit_rows(rows: int, channels: int, device: torch.device) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, channels, device=device), dim=1)


def norm_kernels(device: torch.device, tiny: bool) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    shapes = [(2, 32, 8, 8)] if tiny else [(32, 128, 256, 256), (32, 256, 64, 64), (32, 512, 16, 16)]
    for shape in shapes:
        yield f"GroupNorm and SiLU, {' x '.join(map(str, shape))}", lambda shape=shape: norm(shape, device)


def norm(shape: tuple[int, ...], device: torch.device) -> dict[str, Any]:
    """Forward and backward in bf16, beside torch on the same channels_last image and on a contiguous one."""
    from smalti.nn.group_norm import group_norm, is_fused

    image = torch.randn(shape, device=device, dtype=torch.bfloat16)
    weight, bias = (torch.randn(shape[1], device=device, requires_grad=True) for _ in range(2))
    last = image.contiguous(memory_format=torch.channels_last)
    fused, plain = last.detach().requires_grad_(), image.detach().requires_grad_()

    def ours() -> tuple[Tensor, ...]:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            y = group_norm(fused, 32, weight, bias, 1e-6, silu=True)
        return torch.autograd.grad(y, (fused, weight, bias), torch.ones_like(y))

    def theirs(x: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            y = torch.nn.functional.silu(torch.group_norm(x, 32, weight, bias, 1e-6))
        return torch.autograd.grad(y, (x, weight, bias), torch.ones_like(y))

    exact = image.detach().double().requires_grad_()
    y = torch.nn.functional.silu(torch.group_norm(exact, 32, weight.double(), bias.double(), 1e-6))
    expected = torch.autograd.grad(y, exact, torch.ones_like(y))[0]
    error = float((ours()[0].double() - expected).norm() / expected.norm())
    del y, exact, expected
    against = {
        "torch, contiguous": 1000 * median(lambda: theirs(plain), device),
        "torch, channels_last": 1000 * median(lambda: theirs(fused), device),
    }
    row = {"milliseconds": 1000 * median(ours, device), "against": against, "error": error}
    return row | {"path": "triton" if is_fused(last) else "torch"}


def quickstart(found: Found, device: torch.device, tiny: bool) -> None:
    """A step of the quickstart, which is bound by launches, with and without graphs."""
    from smalti.bench.recipe import measure_recipe

    recipe, batch = ("tiny-quickstart", 2) if tiny else ("quickstart", None)
    for graphs in ("off", "auto"):
        report = measure_recipe(recipe, [f"engine.graphs={graphs}"], None, batch, device, 2 if tiny else 50)
        found.put(f"graphs {graphs}", asdict(report))


# Where most that failed on a GPU before is: resumption, equal runs, trajectories, averages; first what is short.
AT_RISK = ("gan/test_trajectories.py", "engine/test_loop.py", "engine/test_resume.py", "generate", "engine", "gan")


def tests(found: Found, device: torch.device, tiny: bool) -> None:
    """What only a GPU can show: by pytest, or the laws alone where there is none."""
    chosen = ["-m", "gpu"] if device.type == "cuda" else ["-m", "not slow"]
    counted(found, lambda note: run_pytest(note, device, [*chosen, str(ROOT / "tests" / "gpu")]), device)


def suite(found: Found, device: torch.device, tiny: bool) -> None:
    """The tests that train, on the device, as many as the time allows; nothing where there is no pytest."""
    places = [str(ROOT / "tests" / place) for place in (AT_RISK[:1] if tiny else AT_RISK)]
    words = ["-m", "not slow and not gpu", *(["-k", "gp_adam and float32"] if tiny else []), *places]
    counted(found, lambda note: run_pytest(note, device, words), None)


def counted(found: Found, run: Callable[[Callable[[str, str, str], None]], None], alone: torch.device | None) -> None:
    """Writes each outcome as it is known; without pytest the laws run, on ``alone``, if it is given."""
    counts = {"passed": 0, "failed": 0, "skipped": 0, "failures": []}

    def note(name: str, outcome: str, told: str) -> None:
        counts[outcome] += 1
        if outcome == "failed":
            counts["failures"].append(f"{name}: {told}"[:400])
        for key, value in counts.items():
            found.put(key, value)

    if importlib.util.find_spec("pytest") is not None:
        run(note)
    elif alone is not None:
        run_laws(note, alone)
    if counts["failed"]:
        raise SystemExit(1)


def run_laws(note: Callable[[str, str, str], None], device: torch.device) -> None:
    import tempfile

    from tests.gpu import laws

    for name, law in laws.LAWS.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                law(device, Path(folder))
                note(name, "passed", "")
            except Exception as error:
                note(name, "failed", f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}")


def run_pytest(note: Callable[[str, str, str], None], device: torch.device, chosen: list[str]) -> None:
    import pytest

    class Gather:
        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.when == "call" or report.outcome != "passed":
                last = str(report.longrepr).strip().splitlines()[-1:] if report.failed else [""]
                note(report.nodeid, report.outcome, last[0])

    words = ["-q", "-p", "no:cacheprovider", "--device", device.type, *chosen]
    pytest.main(words, plugins=[Gather()])


def median(run: Callable[[], object], device: torch.device, repeats: int = 11) -> float:
    """Seconds, after a run that compiles what has to be."""
    run()
    run()
    return statistics.median(seconds_of(run, device) for _ in range(repeats if device.type == "cuda" else 2))


def peak(run: Callable[[], object], device: torch.device) -> float | None:
    """MiB beyond what was there before; None on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return float(torch.cuda.max_memory_allocated() - before) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parts: dict[str, Callable[[Found, torch.device, bool], None]] = {
        "roofs": roofs,
        "kernels": kernels,
        "quickstart": quickstart,
        "tests": tests,
        "suite": suite,
        **{name: lambda *given, name=name: step(name, *given) for name in STEPS},
    }
    parser.add_argument("part", choices=parts)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no GPU here: --device cpu --tiny tries the script without one")
    torch.manual_seed(0)
    parts[options.part](Found(options.out), torch.device(options.device), options.tiny)


if __name__ == "__main__":
    main()
