"""Distillation: the goldens' value and gradient, batch of one, temperature, negatives of all ranks."""

import math
import os

import pytest
import torch
from torch import multiprocessing as mp
from torch.nn import functional as F

from smalti.losses.cosine import cosine
from smalti.losses.info_nce import InfoNCE, info_nce


@pytest.mark.parametrize("teacher", ["clip", "dino"])
def test_it_equals_fqgan(golden, teacher):
    data = golden("fqgan/semantic_infonce.safetensors")
    tokens = data[f"io.{teacher}.student"].clone().requires_grad_()
    loss = info_nce(tokens[:, 0], (data[f"io.{teacher}.teacher_cls"].flatten(1),))
    torch.testing.assert_close(loss, data[f"io.{teacher}.loss"], atol=1e-6, rtol=0.0)
    loss.backward()
    torch.testing.assert_close(tokens.grad, data[f"io.{teacher}.grad_student"], atol=1e-7, rtol=1e-4)
    assert tokens.grad[:, 0].abs().sum() > 0.0, "the first release had none"


def test_formula_by_hand():
    s, t = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    expected = 0.0
    for i in range(3):
        scores = [math.exp(float(F.cosine_similarity(s[i], t[j], dim=0)) / 0.2) for j in range(3)]
        expected -= math.log(scores[i] / sum(scores)) / 3
    assert info_nce(s, t, temperature=0.2).item() == pytest.approx(expected)


def test_chance_and_best_value_of_32_images():
    same = torch.ones(32, 5)
    assert info_nce(same, same).item() == pytest.approx(math.log(32))
    simplex = torch.eye(32) - 1 / 32
    assert info_nce(simplex, simplex).item() == pytest.approx(2.488, abs=1e-3)


def test_a_batch_of_one_has_no_negatives():
    student = torch.randn(1, 4, requires_grad=True)
    loss = info_nce(student, torch.randn(1, 4))
    loss.backward()
    assert loss.item() == 0.0
    assert not student.grad.any()
    assert cosine(student, torch.randn(1, 4)).item() != 0.0, "the cosine needs none"


def test_the_teacher_gets_no_gradient():
    student, teacher = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    (info_nce(student, teacher) + cosine(student, teacher)).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("shape", [(3, 5), (3, 4, 2), (2, 4)])
@pytest.mark.parametrize("loss", [info_nce, cosine])
def test_vectors_of_unequal_shape_are_errors(loss, shape):
    with pytest.raises(ValueError, match=r"expected \(B, W\)"):
        loss(torch.randn(3, 4), torch.randn(*shape))


def test_temperature_is_positive():
    with pytest.raises(ValueError, match=r"temperature=0.0: expected a positive number"):
        InfoNCE(temperature=0.0)


def _gathered(rank, folder):
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    data = torch.load(f"{folder}/data.pt")
    mine = slice(2 * rank, 2 * rank + 2)
    student = data["student"][mine].clone().requires_grad_()
    loss = info_nce(student, data["teacher"][mine], gather=True)
    loss.backward()
    torch.save({"loss": loss.detach(), "gradient": student.grad}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_gathered_negatives_make_the_loss_of_the_global_batch(tmp_path):
    student, teacher = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    torch.save({"student": student, "teacher": teacher}, tmp_path / "data.pt")
    mp.spawn(_gathered, (str(tmp_path),), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    whole = student.clone().requires_grad_()
    loss = info_nce(whole, teacher)
    loss.backward()
    torch.testing.assert_close(sum(one["loss"] for one in found) / 2, loss.detach())
    torch.testing.assert_close(torch.cat([one["gradient"] for one in found]) / 2, whole.grad)
