"""What a diagnosis sees of a step: right, without waiting for the device, and never worth a run."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from smalti.engine.diagnosis.safely import Safely
from smalti.engine.diagnosis.signals import distance, image_signals, latent_signals, token_signals, update_ratio
from smalti.engine.diagnosis.surroundings import Labels, Teachers
from smalti.engine.diagnosis.window import MOST, Window
from smalti.engine.ema import EMA
from smalti.engine.settings import EMASettings
from smalti.outputs import AutoencoderOutput, BottleneckOutput, DiagonalGaussian
from smalti.quantizers.ibq import IBQ
from smalti.quantizers.nearest import Nearest
from tests.engine.toys import tiny_trainer

READS = ("item", "tolist", "cpu", "__bool__", "__float__", "__int__", "numpy")


def turn(fit: float, norm: float) -> Any:
    """A turn of two micro-batches whose two terms add up to ``fit``."""
    values = {"latent": 9.0, "term 'a'": 0.5 * fit, "term 'b'": 0.5 * fit, "term 'c'": 8.0, "total": 7.0}
    suspects = SimpleNamespace(terms=[*values] * 2, values=torch.tensor([*values.values()] * 2))
    return SimpleNamespace(reports=[None] * 2, suspects=suspects, gradient_norm=torch.tensor(norm))


@pytest.mark.parametrize("count", [1, 5, 256, 600])
def test_window_has_mean_and_largest_of_all_updates_and_reads_nothing(count: int, monkeypatch: Any) -> None:
    window = Window(["a", "b"], clip=2.0)
    turns = [turn(1.0 + n % 7, 1.0 + n % 3) for n in range(count)]
    with monkeypatch.context() as patch:
        for name in READS:
            patch.setattr(Tensor, name, lambda *arguments: pytest.fail("waits for the device"))
        for one in turns:
            window.note(one)
    fits, norms = [1.0 + n % 7 for n in range(count)], [1.0 + n % 3 for n in range(count)]
    assert window.numbers() == pytest.approx(
        {
            "fit": sum(fits) / count,
            "fit_max": max(fits),
            "gradient_norm_max": max(norms),
            "clip_active": sum(norm > 2.0 for norm in norms) / count,
            "clip_depth": sum(norm / 2.0 for norm in norms) / count,
        }
    )


class Counting(TorchDispatchMode):
    """Counts what is asked of tensors."""

    calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


def test_an_update_costs_no_operation_on_tensors() -> None:
    window, one = Window(["a", "b"], clip=2.0), turn(1.0, 1.0)
    with Counting() as counting:
        for _ in range(MOST):
            window.note(one)
    assert counting.calls == 0


def test_window_that_was_saved_goes_on_and_leaves_out_what_is_not_finite() -> None:
    whole, first, second = (Window(["a", "b"], clip=None) for _ in range(3))
    values = [(1.0, 2.0), (float("nan"), float("inf")), (3.0, 1.0)]
    for fit, norm in values:
        whole.note(turn(fit, norm))
    for fit, norm in values[:2]:
        first.note(turn(fit, norm))
    second.restore(json.loads(json.dumps(first.sums())))
    second.note(turn(*values[2]))
    assert second.numbers() == whole.numbers() == {"fit": 2.0, "fit_max": 3.0, "gradient_norm_max": 2.0}
    assert whole.numbers() == {}  # each update is told once


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop])
@pytest.mark.parametrize("updates", [1, 3, 40])
def test_update_ratio_is_what_the_weights_moved(kind: Any, updates: int) -> None:
    torch.manual_seed(0)
    network = nn.Linear(5, 4)
    optimizer = kind(network.parameters(), lr=1e-3, weight_decay=0.0)
    for _ in range(updates):
        before = torch.cat([p.detach().flatten().clone() for p in network.parameters()])
        optimizer.zero_grad()
        network(torch.randn(6, 5)).square().sum().backward()
        optimizer.step()
    after = torch.cat([p.detach().flatten() for p in network.parameters()])
    found = update_ratio("player", optimizer, updates)["player/update_ratio"]
    assert float(found) == pytest.approx(float((after - before).norm() / after.norm()), rel=1e-3)
    assert update_ratio("player", torch.optim.SGD(network.parameters(), lr=0.1), 1) == {}


def test_images_are_measured_in_the_range_in_which_they_will_be_seen() -> None:
    bytes_ = torch.tensor([[0, 255], [255, 255]], dtype=torch.uint8).reshape(2, 1, 1, 2)
    found = {name: float(value) for name, value in image_signals(bytes_).items()}
    assert (found["image/min"], found["image/max"], found["image/constant"]) == (-1.0, 1.0, 0.5)
    assert found == pytest.approx({n: float(v) for n, v in image_signals(bytes_ / 127.5 - 1.0).items()})
    raw = image_signals(bytes_.float())
    assert float(raw["image/max"]) == 255.0  # floats that nobody scaled
    assert image_signals(None) == image_signals(torch.zeros(3)) == {}


def test_colour_is_how_much_channels_differ_on_average() -> None:
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    images[:, 0] = 51  # 0.4 of [-1, 1] from the second channel, which is the third
    assert float(image_signals(images)["image/colour"]) == pytest.approx(0.2)
    assert "image/colour" not in image_signals(images[:, :1])


def test_tokens_tell_which_there_are_and_whether_images_agree() -> None:
    tokens = torch.tensor([[0, 1, 2, 2], [0, 1, 2, 5]]).reshape(2, 1, 2, 2)
    found = {name: float(value) for name, value in token_signals(tokens, {"look": 16}).items()}
    at = "tokens/look/"
    wanted = {f"{at}codes": 16.0, f"{at}highest": 5.0, f"{at}different": 4.0, f"{at}distinct": 0.5, f"{at}agree": 0.75}
    assert found == wanted
    assert token_signals(None, {"look": 16}) == token_signals(tokens, {"look": 16, "more": 2}) == {}


def test_latents_tell_their_kl_and_which_channels_are_in_use() -> None:
    mean = torch.zeros(2, 4, 1, 1)
    mean[:, 0] = 2.0
    posterior = DiagonalGaussian(mean, torch.zeros_like(mean))
    output = AutoencoderOutput(reconstruction=mean, bottleneck=BottleneckOutput(latent=mean, posterior=posterior))
    found = {name: float(value) for name, value in latent_signals(output).items()}
    assert found == pytest.approx({"posterior/kl": 0.5, "posterior/active": 0.25})
    assert latent_signals(None) == {}


def test_scales_of_latents_and_codes_are_compared_where_the_nearest_code_is_chosen() -> None:
    z = torch.randn(2, 4, 3, 3)
    for quantizer, ratio in ((Nearest(size=8, channels=4), True), (IBQ(size=8, channels=4), False)):
        bottleneck = BottleneckOutput(latent=z, codebooks={"look": quantizer(100.0 * z)})
        found = latent_signals(AutoencoderOutput(reconstruction=z, bottleneck=bottleneck))
        assert ("codebook/look/norm_ratio" in found) == ratio
        assert float(found["codebook/look/error"]) > 0.5


def test_labels_are_least_and_largest_since_the_last_time() -> None:
    labels = Labels()
    labels.note([{"label": torch.tensor([3, 1])}, {"image": 0}, {"label": torch.tensor([2])}])
    assert labels.numbers() == {"label/min": 1.0, "label/max": 3.0, "label/seen": 3.0}
    assert labels.numbers() == {}
    labels.note([{"label": torch.tensor([5])}])
    assert labels.numbers() == {"label/min": 5.0, "label/max": 5.0, "label/seen": 4.0}


def test_teachers_are_measured_when_they_are_looked_at() -> None:
    teacher = nn.Identity()
    teachers = Teachers({"a": teacher})
    teacher(torch.randn(4, 3))
    assert teachers.numbers() == {}
    teachers.looking = True
    teacher(torch.ones(4, 3))
    assert float(teachers.numbers()["teacher/a/variation"]) == 0.0
    teacher(torch.tensor([[1.0], [-1.0]]))
    assert float(teachers.numbers()["teacher/a/variation"]) == pytest.approx(2.0**0.5)


def test_decay_and_distance_of_averages_are_those_of_the_averages() -> None:
    network = nn.Linear(2, 2)
    for settings in (EMASettings(decay=0.9), EMASettings(half_life=100.0), EMASettings(decay=0.5, warmup=False)):
        ema = EMA(network, settings)
        for n in (1, 2, 3):
            ema.update(images=8)
            assert settings.decay_at(n, 8) == pytest.approx(float(ema._decay(8)))
    assert float(distance(ema.shadow, ema.parameters)["ema/distance"]) == 0.0


def test_what_fails_is_told_once_and_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def broken(image: Tensor) -> Any:
        asked.append(len(image))
        raise RuntimeError("out of sorts")

    monkeypatch.setattr("smalti.engine.turn.image_signals", broken)
    tiny_trainer(tmp_path / "run", max_steps=4, log_every=1).run()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    told = [line["warning"] for line in lines if "diagnosis" in line.get("warning", "")]
    assert told == ["diagnosis: images failed and is switched off: RuntimeError: out of sorts"]
    assert len(asked) == 1
    assert any("train/generator/update_ratio" in line for line in lines)


def test_safely_does_nothing_more_after_a_failure() -> None:
    careful, done = Safely(), []
    careful.do("one", done.append, 1)
    careful.do("one", lambda value: done.append(value // 0), 1)
    careful.do("one", done.append, 2)
    assert done == [1]
