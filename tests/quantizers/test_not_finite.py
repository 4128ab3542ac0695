"""A latent that is not finite is no token: -1 and nan where it was, nothing counted, the step named and skipped."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from smalti.bottlenecks.tokens import Tokens
from smalti.metrics.bits_per_image import BitsPerImage
from smalti.metrics.codebook_mutual_information import CodebookMutualInformation
from smalti.metrics.codebook_usage import CodebookUsage
from smalti.metrics.perplexity import Perplexity
from smalti.quantizers.nearest import EMA, Revival
from smalti.registry import UserError
from tests.engine.test_loop import records
from tests.engine.toys import differences, everything, tiny_model, tiny_trainer
from tests.metrics.test_metrics import codes, measure, observation
from tests.quantized import branch, one_codebook, the_quantizer

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "normalised": {"normalize": True},
    "averaged": {"ema": EMA(), "revival": Revival(patience=1)},
    "k-means": {"init": "kmeans"},
    "copied": {"estimator": "gradient_copy", "codebook_gradient": True},
}
KINDS = {
    "one": lambda options: one_codebook(3, 8, 3, **options),
    "two": lambda options: Tokens(in_channels=3, codebooks={name: branch(8, 3, **options) for name in "ab"}),
}


def features(value: float) -> torch.Tensor:
    made = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    made[1, 2, 0, 3] = value
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_there_is_no_token_where_the_latent_is_not_finite(
    kind: str, options: dict[str, Any], training: bool, value: float
) -> None:
    made = KINDS[kind](options).train(training)
    sound, output = copy.deepcopy(made)(features(0.0)), made(features(value))
    place = torch.zeros(2, 4, 5, dtype=torch.bool)
    place[1, 0, 3] = True
    for group, record in enumerate(output.codebooks.values()):
        assert torch.equal(record.indices == -1, place)
        assert torch.equal(output.indices[:, group], record.indices)
        for tensor in (record.latent, record.quantized):
            assert torch.equal(tensor.isnan().all(dim=1), place)
            assert torch.equal(tensor.isnan().any(dim=1), place)
    if options.get("init") != "kmeans" or not training:  # k-means starts without it
        assert torch.equal(output.indices.where(~place[:, None], 0), sound.indices.where(~place[:, None], 0))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_what_is_no_token_is_not_counted_and_spoils_no_code(options: dict[str, Any]) -> None:
    made = KINDS["one"](options)
    for _ in range(3):
        made.update([made(features(math.nan))])
    assert the_quantizer(made).window.counts.sum() == 3 * (2 * 4 * 5 - 1)
    assert all(bool(torch.isfinite(value).all()) for value in made.state_dict().values())


def test_metrics_count_tokens_only() -> None:
    seen = codes([0, -1, 1, 0], [0, 2, -1, 0], sizes={"visual": 2, "semantic": 8})
    assert measure(CodebookUsage(), seen) == {"codebook_usage/visual": 1.0, "codebook_usage/semantic": 0.25}
    assert measure(BitsPerImage(), seen)["bits_per_image"] == 3 * 1 + 3 * 3
    both = observation(indices=torch.tensor([[[[0, 0]], [[0, 0]]]]), sizes={"visual": 2, "semantic": 8})
    assert measure(CodebookMutualInformation(), seen) == measure(CodebookMutualInformation(), both)
    nothing = codes([-1, -1])
    assert math.isnan(measure(Perplexity(), nothing)["perplexity"])


def test_no_token_cannot_be_decoded() -> None:
    model = tiny_model().eval()
    image = torch.zeros(1, 3, 16, 16)
    image[0, 0, 3, 3] = math.nan
    with torch.no_grad():
        output = model.encode(image)
        assert (output.indices == -1).any()
        with pytest.raises(UserError, match="indices of 'codebook' from -1"):
            model.decode_indices(output.indices)
        assert model.decode(output.latent).isnan().any()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("space", ["codes", "gaussian"])
def test_the_guard_names_the_latent_and_nothing_is_changed(tmp_path: Path, space: Any, value: float) -> None:
    trainer = tiny_trainer(tmp_path / "run", max_steps=4, space=space, revival=True, norm="none")
    model = trainer.phases["generator"].network
    before: dict[str, torch.Tensor] = {}

    def spoil(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        if trainer.state.step != 2:
            return None
        before.update(everything(trainer))
        values = arguments[0].clone()
        values[0, :, 0, 0] = value
        return (values, *arguments[1:])

    model.bottleneck.register_forward_pre_hook(spoil)
    run = trainer.run_cycle

    def watched(measure: bool = False) -> Any:
        turns = run(measure)
        if trainer.state.step == 3:
            changed = differences(before, everything(trainer))
            assert all(name.startswith(("discriminator.", "optimizer.discriminator.")) for name in changed)
        return turns

    trainer.run_cycle = watched  # type: ignore[method-assign]
    trainer.run()
    assert before
    place = "latent of codebook 'codebook'" if space == "codes" else "latent"
    told = [record["skipped"] for record in records(tmp_path / "run") if "skipped" in record]
    assert told[0] == f"generator: {place} is not finite"
    assert trainer.state.skipped["generator"] == 1


def test_a_record_can_be_rebuilt() -> None:
    record = KINDS["one"]({})(features(0.0)).codebooks["codebook"]
    assert torch.equal(replace(record, indices=record.indices).indices, record.indices)
