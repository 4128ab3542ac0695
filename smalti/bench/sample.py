"""``smalti bench sample``: drawing the tokens of a batch, beside a sampler written as the original's."""

from typing import TYPE_CHECKING

from smalti.bench.measure import Row, compare, interleave, memory_note, textbook

if TYPE_CHECKING:
    import torch

    from smalti.models.far import FAR

GUIDANCE = 2.0
HEAD_DEPTH = 2
INITIAL = 0.02


def measure_sample(
    width: int, depth: int, codes: int, codebooks: int, side: int, batch: int, device: "torch.device", repeats: int
) -> tuple[list[Row], list[str]]:
    """Rows ``sample`` and ``sample bfloat16`` against the textbook in both precisions, and notes."""
    import torch

    classes = torch.arange(batch, device=device)
    models = {
        name: _far(width, depth, codes, codebooks, side).to(device, dtype)
        for name, dtype in (("sample", torch.float32), ("sample bfloat16", torch.bfloat16))
    }
    variants = {name: lambda model=model: _best(model, classes) for name, model in models.items()}
    plain = textbook("textbook_sampling")
    others = {
        name.replace("sample", "textbook"): lambda model=model: plain.sample(model, classes, GUIDANCE)
        for name, model in models.items()
    }
    same = torch.equal(_best(models["sample"], classes), others["textbook"]())
    notes = [f"tokens of the two in float32: {'equal' if same else 'NOT equal'}"]
    found = interleave(variants | others, repeats, device)
    rows: list[Row] = []
    for name in variants:
        rows += compare(name, found[name], {other: found[other] for other in others})
    positions = ", ".join(f"{name} {side * side / found[name].seconds:.1f}" for name in [*variants, *others])
    notes += [f"positions/s: {positions}", memory_note(found, others)]
    return rows, notes


def _far(width: int, depth: int, codes: int, codebooks: int, side: int) -> "FAR":
    """A model with random weights, those of its outputs too: with those it starts with, all codes would be equal."""
    import torch

    from smalti.models.far import FAR

    torch.manual_seed(0)
    model = FAR(
        codebooks={f"codes_{number}": codes for number in range(codebooks)},
        grid=(side, side),
        num_classes=1000,
        width=width,
        depth=depth,
        head_depth=HEAD_DEPTH,
        heads=max(width // 64, 1),
    )
    for output in model.outputs:
        torch.nn.init.normal_(output.weight, std=INITIAL)  # type: ignore[arg-type]
    return model.eval()


def _best(model: "FAR", classes: "torch.Tensor") -> "torch.Tensor":
    return model.sample(classes, guidance=GUIDANCE, temperature=0.0).flatten(2)
