"""``smalti bench step --recipe``: a whole step of any recipe, beside what the machine can do at all."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from smalti.bench.flops import Operations
from smalti.bench.kernels import Kernel, by_kind, profiled
from smalti.bench.measure import MEBI, seconds_of
from smalti.bench.step import OurStep
from smalti.registry import UserError
from smalti.writing import to_json

if TYPE_CHECKING:
    import torch

    from smalti.engine.graphs import Replayer

LARGEST = 10  # kernels that are shown
WARM_UP = 2
GPU_WARM_UP = 6  # kernels are compiled, and a graph is captured after three steps
LATE = 10**9 + 1  # all terms have started by then, and lazy ones act at other steps


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What one step of all players took.

    Args:
        recipe: its name.
        device: what it ran on.
        precision: of the recipe.
        batch: images of the step.
        size: height and width of an image.
        milliseconds: the median of the repetitions.
        images_per_second: batch by the median.
        peak_mib: the largest memory allocated on a GPU, weights and optimizers included; None on a CPU.
        gigaflop: products and convolutions of the step, a multiplication and an addition counted as two.
        tflops: these by the median time.
        matrix_tflops: what a large matrix product reaches here, in the recipe's precision.
        convolution_tflops: what a 3x3 convolution reaches.
        classes: class of kernels -> milliseconds and share in a profile of one step.
        kernels: the longest ten.
        graphs: player -> how often its update was recorded and replayed as a CUDA graph, or why it was not.
    """

    recipe: str
    device: str
    precision: str
    batch: int
    size: tuple[int, int]
    milliseconds: float
    images_per_second: float
    peak_mib: float | None
    gigaflop: float
    tflops: float
    matrix_tflops: float
    convolution_tflops: float
    classes: dict[str, tuple[float, float]] = field(default_factory=dict)
    kernels: list[Kernel] = field(default_factory=list)
    graphs: dict[str, str] = field(default_factory=dict)


def measure_recipe(
    name: str, overrides: Sequence[str], size: int | None, batch: int | None, device: "torch.device", repeats: int
) -> StepReport:
    """Measures a step of a recipe on random images: one update of each player, as late in a run that all terms act.

    Args:
        name: a shipped recipe or a path.
        overrides: ``section.key=value`` each.
        size: side of the images; None: as in the recipe.
        batch: images; None: as in the recipe.
        device: where it runs.
        repeats: steps that are timed.

    Raises:
        UserError: if the recipe says no size and none is given, or its step needs more than images.
    """
    import torch

    from smalti.assembly.fitness import image_shape
    from smalti.assembly.recipe import load_recipe
    from smalti.outputs import predicts_tokens

    place = "cpu" if device.type == "cpu" else "auto"
    recipe = load_recipe(name, [*overrides, f"engine.device={place}", "engine.accumulate=1"])
    if predicts_tokens(recipe.model_class):
        raise UserError(f"{recipe.name}: its step reads tokens, and this times steps on images; see `bench sample`")
    torch.manual_seed(0)
    count = batch or int(recipe.specs["data"].arguments["batch_size"])
    with torch.device("meta"):
        shape = image_shape(recipe, recipe.specs["model"].build(), "data")
    if shape is None and size is None:
        raise UserError(f"{recipe.name}: data.transform.size is not given: say --size")
    channels, height, width = shape or (3, 0, 0)
    sides = (height, width) if size is None else (size, size)
    images = torch.randint(0, 256, (count, channels, *sides), dtype=torch.uint8)
    step = OurStep(recipe, images)
    step.count = LATE
    try:
        # Eager and early: what is compiled, or replayed from a graph, shows no operations to count.
        with torch.compiler.set_stance("force_eager"):
            step()
            with Operations() as operations:
                step()
    except KeyError as error:
        raise UserError(f"{recipe.name}: its step needs more than images: {error}") from error
    except ValueError as error:
        raise UserError(
            f"{recipe.name}: no step on {count} images of {sides[0]} x {sides[1]} pixels: {error}"
        ) from error
    precision = str(recipe.specs["engine"].build().precision)
    return _report(recipe.name, precision, step, operations.total, count, sides, device, repeats)


def _report(
    name: str,
    precision: str,
    step: OurStep,
    operations: int,
    count: int,
    sides: tuple[int, int],
    device: "torch.device",
    repeats: int,
) -> StepReport:
    import torch

    for _ in range(GPU_WARM_UP if device.type == "cuda" else WARM_UP):
        step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = statistics.median(_wall(step, device) for _ in range(repeats))
    peak = torch.cuda.max_memory_allocated() / MEBI if device.type == "cuda" else None
    kernels = profiled(step, device)
    matrix, convolution = roofs(device, torch.bfloat16 if precision == "bf16" else torch.float32)
    return StepReport(
        recipe=name,
        device=torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads",
        precision=precision,
        batch=count,
        size=sides,
        milliseconds=1000 * seconds,
        images_per_second=count / seconds,
        peak_mib=peak,
        gigaflop=operations / 1e9,
        tflops=operations / seconds / 1e12,
        matrix_tflops=matrix,
        convolution_tflops=convolution,
        classes=by_kind(kernels),
        kernels=kernels[:LARGEST],
        graphs={name: _graphs(player.replayer) for name, player in step.players.items()},
    )


def _graphs(replayer: "Replayer[Any]") -> str:
    return replayer.reason or f"recorded {replayer.recordings} x, replayed {replayer.replays} x"


def _wall(run: Callable[[], object], device: "torch.device") -> float:
    if device.type == "cuda":
        return seconds_of(run, device)
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def roofs(device: "torch.device", dtype: "torch.dtype") -> tuple[float, float]:
    """TFLOP/s of a large matrix product and of a 3x3 convolution in channels_last, as torch runs them here."""
    import torch

    large = device.type == "cuda"
    side, width, pixels, images = (8192, 512, 64, 32) if large else (1024, 128, 32, 2)
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    image = torch.randn(images, width, pixels, pixels, device=device, dtype=dtype)
    image = image.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(width, width, 3, 3, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    found = []
    runs: list[Callable[[], object]] = [
        lambda: one @ other,
        lambda: torch.nn.functional.conv2d(image, weight, padding=1),
    ]
    with torch.no_grad():
        for run, work in zip(runs, (2 * side**3, 2 * image.numel() * width * 9), strict=True):
            run()
            times = [_wall(run, device) for _ in range(7)]
            found.append(work / statistics.median(times) / 1e12)
    return found[0], found[1]


def show_report(report: StepReport, as_json: bool) -> None:
    """Prints it, as text or as one JSON object."""
    import typer

    if as_json:
        typer.echo(to_json(asdict(report)))
        return
    height, width = report.size
    lines = [
        f"{report.recipe} on {report.device}, {report.precision}, batch {report.batch}, {height} x {width} pixels",
        f"{report.milliseconds:,.1f} ms a step, {report.images_per_second:,.1f} images/s"
        + ("" if report.peak_mib is None else f", {report.peak_mib:,.0f} MiB at the peak"),
        f"{report.gigaflop:,.1f} GFLOP: {report.tflops:.2f} TFLOP/s, "
        f"{100 * report.tflops / report.matrix_tflops:.0f} % of a matrix product's {report.matrix_tflops:.2f}, "
        f"{100 * report.tflops / report.convolution_tflops:.0f} % of a 3x3 convolution's "
        f"{report.convolution_tflops:.2f}",
        "",
        *(f"{time:10.2f} ms {100 * share:3.0f} %  {kind}" for kind, (time, share) in report.classes.items()),
        "",
        *(
            f"{kernel.milliseconds:10.2f} ms {100 * kernel.share:3.0f} %  {kernel.name[:80]} ({kernel.kind})"
            for kernel in report.kernels
        ),
    ]
    typer.echo("\n".join(lines))
