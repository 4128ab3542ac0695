"""Checks that a training step does not wait for: nothing is read inside, and everything is said afterwards."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from smalti.losses._range import check_images
from smalti.losses.psnr import psnr
from smalti.nn.postponed import Postponed
from smalti.objectives import Term
from tests.engine.toys import tiny_trainer
from tests.gpu.stand_in import Waits, reads_cost

SIGNED = (-1.0, 1.0)


def image(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(1, 1, 1, -1)


def test_nothing_is_read_while_checks_are_collected_and_the_worst_is_told_once() -> None:
    checks = Postponed()
    with checks.collecting(), Waits() as waits:
        for values in ((0.0, 0.5), (-3.0, 0.0), (0.0, 7.0), (torch.nan, 0.0)):
            check_images(image(0.0, 0.0), image(*values), SIGNED)
    assert not waits.found
    with pytest.raises(ValueError, match=r"^target has values from -3 to 7: expected images in \[-1, 1\]$"):
        checks.read()
    checks.read()
    with checks.collecting():
        check_images(image(0.0), image(1.0), SIGNED)
        check_images(image(0.0), image(200.0), (0.0, 255.0))  # each range for itself
    checks.read()
    with pytest.raises(ValueError, match="target has values from 9 to 9"):
        check_images(image(0.0), image(9.0), SIGNED)  # outside at once


def test_only_nan_is_no_complaint_as_it_is_none_at_once() -> None:
    checks = Postponed()
    with checks.collecting():
        check_images(image(0.0), image(torch.nan), SIGNED)
    checks.read()
    check_images(image(0.0), image(torch.nan), SIGNED)


def test_a_run_that_must_not_wait_says_it_at_its_next_log_step(tmp_path: Path) -> None:
    def too_bright(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return psnr(prediction, target * 100.0).mean()

    for name, waiting in (("at once", False), ("later", True)):
        trainer = tiny_trainer(tmp_path / name, extra=[Term(name="bright", loss=too_bright, role="log")])
        with (
            reads_cost() if waiting else nullcontext(),
            pytest.raises(ValueError, match=r"target has values from -[\d.]+ to [\d.]+: expected images in \[-1, 1\]"),
        ):
            trainer.run()
        assert trainer.state.step == int(waiting)
