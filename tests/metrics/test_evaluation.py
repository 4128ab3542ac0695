"""One pass over held-out images: padding, sharding, modes, names."""

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smalti.losses.psnr import psnr
from smalti.metrics import Metric, Observation
from smalti.metrics.bits_per_image import BitsPerImage
from smalti.metrics.codebook_usage import CodebookUsage
from smalti.metrics.evaluation import evaluate, examine, observe, pad_to_multiple
from smalti.metrics.psnr import PSNR
from smalti.metrics.ssim import SSIM
from smalti.outputs import BottleneckOutput
from smalti.registry import UserError


class Rounding(nn.Module):
    """Averages squares of 4 x 4 pixels and rounds them to 8 levels; the levels are its codes."""

    factor = 4
    codebook_sizes: Mapping[str, int] = {"levels": 8}

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.frozen = nn.Dropout().eval()
        self.noise = noise
        self.encoded = 0

    def encode(self, images: Tensor) -> BottleneckOutput:
        assert not self.training
        assert not torch.is_grad_enabled()
        assert images.shape[-1] % 4 == images.shape[-2] % 4 == 0
        self.encoded += 1
        means = nn.functional.avg_pool2d(images, 4).mean(1, keepdim=True)
        means = means + self.noise * torch.randn_like(means)
        indices = ((means + 1) * 3.5).round().clamp(0, 7).long()
        return BottleneckOutput(latent=self.gain * (indices / 3.5 - 1), indices=indices)

    def decode(self, latent: Tensor) -> Tensor:
        return latent.repeat_interleave(4, -1).repeat_interleave(4, -2).expand(-1, 3, -1, -1)


METRICS: dict[str, Metric] = {
    "psnr": PSNR(),
    "ssim": SSIM(),
    "codebook_usage": CodebookUsage(),
    "bits_per_image": BitsPerImage(),
}


def batches(*sizes: tuple[int, int, int]) -> list[dict[str, Any]]:
    random, found, start = torch.Generator().manual_seed(0), [], 0
    for number, height, width in sizes:
        pixels = torch.randint(0, 256, (number, 3, height, width), dtype=torch.uint8, generator=random)
        found.append({"image": pixels, "index": torch.arange(start, start + number)})
        start += number
    return found


def test_numbers_are_those_of_the_reconstructions() -> None:
    model, data = Rounding(), batches((2, 16, 16), (1, 8, 12))
    values = evaluate(model, data, METRICS)
    expected = []
    for batch in data:
        images = batch["image"].float() / 127.5 - 1
        with torch.no_grad():
            expected += psnr(observe(model.eval(), images).reconstruction, images).tolist()
    assert values["psnr"] == pytest.approx(sum(expected) / 3)
    assert values["bits_per_image"] == pytest.approx(3 * (16 + 16 + 6) / 3)
    assert list(values)[:2] == ["psnr", "ssim"]
    assert all(type(value) is float for value in values.values())


def test_every_batch_is_encoded_once() -> None:
    model = Rounding()
    evaluate(model, batches((2, 16, 16), (1, 16, 16)), METRICS)
    assert model.encoded == 2


def test_sides_that_do_not_divide_are_padded_and_cut() -> None:
    model, data = Rounding(), batches((1, 13, 18))
    values = evaluate(model, data, METRICS)
    assert values["bits_per_image"] == 3 * 4 * 5
    with torch.no_grad():
        seen = observe(model.eval(), torch.zeros(1, 3, 13, 18))
    assert seen.reconstruction.shape == seen.target.shape == (1, 3, 13, 18)
    image = torch.arange(15.0).reshape(1, 1, 3, 5)
    padded = pad_to_multiple(image, 4)
    assert torch.equal(padded[..., :3, :5], image)
    assert torch.equal(padded[..., 3, :5], image[..., 1, :])
    assert torch.equal(pad_to_multiple(torch.ones(1, 1, 1, 1), 4), torch.ones(1, 1, 4, 4))
    assert pad_to_multiple(padded[..., :4, :4], 4).shape == (1, 1, 4, 4)


def test_shards_add_up_to_the_whole() -> None:
    model, data = Rounding(), batches((2, 16, 16), (1, 16, 20), (2, 12, 12))
    with torch.no_grad():
        seen = [observe(model.eval(), batch["image"].float() / 127.5 - 1) for batch in data]
    for metric in METRICS.values():

        def accumulate(part: list[Observation], metric: Metric = metric) -> Any:
            accumulator = metric.create()
            metric.begin(accumulator, model.codebook_sizes)
            for observation in part:
                metric.update(accumulator, observation)
            return accumulator

        whole = accumulate(seen).compute()
        for cut in (0, 1, 2):  # also a rank without a batch
            merged = accumulate(seen[cut:])
            merged.merge_state(accumulate(seen[:cut]))
            assert {name: float(value) for name, value in merged.compute().items()} == pytest.approx(
                {name: float(value) for name, value in whole.items()}, rel=1e-12
            )


def test_modes_gradients_and_generators_are_left_alone() -> None:
    model = Rounding(noise=0.5)
    assert model.training
    state = torch.get_rng_state()
    first = evaluate(model, batches((2, 16, 16)), METRICS)
    assert model.training
    assert not model.frozen.training
    assert torch.is_grad_enabled()
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(5)
    assert evaluate(model, batches((2, 16, 16)), METRICS) == first


def test_modes_come_back_after_an_error() -> None:
    model = Rounding()

    def broken() -> Iterator[dict[str, Any]]:
        yield from batches((1, 16, 16))
        raise UserError("disk on fire")

    with pytest.raises(UserError, match="disk on fire"):
        evaluate(model, broken(), METRICS)
    assert model.training


def test_rows_hold_what_single_images_have() -> None:
    found = examine(Rounding(), batches((2, 16, 16), (1, 16, 20)), METRICS, names=["a.png", "b.png", "c.png"])
    rows = json.loads(json.dumps(found.images))
    assert [(row["index"], row["name"]) for row in rows] == [(0, "a.png"), (1, "b.png"), (2, "c.png")]
    assert set(rows[0]) == {"index", "name", "psnr", "ssim"}
    assert sum(row["ssim"] for row in rows) / 3 == pytest.approx(found.values["ssim"])


def test_metrics_keep_the_names_they_were_given() -> None:
    data = batches((1, 16, 16))
    values = evaluate(Rounding(), data, {"fidelity": PSNR(), "inside": SSIM(border="valid"), "bits": BitsPerImage()})
    assert set(values) == {"fidelity", "inside", "bits", "bits_effective"}
    assert set(examine(Rounding(), data, {"fidelity": PSNR()}).images[0]) == {"index", "fidelity"}
    assert set(evaluate(Rounding(), data, [PSNR(), SSIM()])) == {"psnr", "ssim"}


class Constant(Metric):
    """A metric from elsewhere that gives one tensor."""

    def create(self) -> Any:
        from torchmetrics import SumMetric

        return SumMetric()

    def update(self, accumulator: Any, observation: Observation) -> None:
        accumulator.update(len(observation.target))


def test_metric_from_elsewhere_is_called_by_its_key() -> None:
    assert evaluate(Rounding(), batches((2, 8, 8), (1, 8, 8)), {"count": Constant()}) == {"count": 3.0}


def test_two_metrics_of_one_name_are_refused() -> None:
    metrics = {"bits_per_image": BitsPerImage(), "bits_per_image_effective": Constant()}
    with pytest.raises(UserError, match="another metric gives 'bits_per_image_effective' already"):
        evaluate(Rounding(), batches((1, 8, 8)), metrics)


def test_nothing_to_evaluate_on_is_an_error() -> None:
    with pytest.raises(UserError, match="no image to evaluate on"):
        evaluate(Rounding(), [], METRICS)


@pytest.mark.parametrize("border", ["reflect", "valid"])
def test_images_too_small_for_a_metric_are_left_out_of_it_alone(border: Any) -> None:
    metrics = {"psnr": PSNR(), "near": SSIM(border=border)}
    least = 6 if border == "reflect" else 11
    found = examine(Rounding(), batches((1, 16, 16), (3, least - 1, 16), (1, 1, 1)), metrics)
    assert found.left_out == {"near": f"4 of 5 images are left out, it needs at least {least} x {least} pixels"}
    assert ["near" in row for row in found.images] == [True, False, False, False, False]
    assert all("psnr" in row for row in found.images)
    alone = evaluate(Rounding(), batches((1, 16, 16)), metrics)
    assert found.values["near"] == pytest.approx(alone["near"])


def test_a_metric_that_no_image_fits_has_no_number() -> None:
    found = examine(Rounding(), batches((2, 1, 1)), {"psnr": PSNR(), "ssim": SSIM()})
    assert set(found.values) == {"psnr"}
    assert found.left_out == {"ssim": "2 of 2 images are left out, it needs at least 6 x 6 pixels"}
    assert not evaluate(Rounding(), batches((1, 4, 4)), [SSIM()])


def test_images_may_be_numbers_and_the_model_in_double_precision() -> None:
    data = [{"image": torch.zeros(1, 3, 8, 8)}]
    values = evaluate(Rounding().double(), data, {"psnr": PSNR()})
    assert values["psnr"] == pytest.approx(-20 * torch.log10(torch.tensor(0.5 / 7)).item(), rel=1e-5)


def test_what_breaks_torchmetrics_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(UserError, match=r"torchmetrics cannot be imported: .*pip uninstall torchvision torch-fidelity"):
        examine(Rounding(), batches((2, 16, 16)), {"psnr": PSNR()})
