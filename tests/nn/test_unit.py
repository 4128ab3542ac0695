"""Unit vectors: exact where there is a direction, with a gradient that is bounded where there is none."""

import pytest
import torch
from torch import nn

from smalti.extractors.lpips import unit as lpips_unit
from smalti.losses.cosine import cosine
from smalti.losses.disentangle import cosines
from smalti.losses.ebgan import pull_away
from smalti.losses.face_id import face_id
from smalti.losses.info_nce import info_nce
from smalti.nn.unit import unit
from smalti.quantizers.nearest import Nearest

WIDTH, OTHER = 6, torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Embed(nn.Module):
    """The embedding of an image is its first column."""

    def forward(self, images):
        return (images[:, 0, :, 0],)


def of_latents(vectors):
    made = Nearest(size=8, channels=WIDTH, normalize=True, init="normal").double()
    record = made(vectors.reshape(4, WIDTH, 1, 1))
    return record.z.flatten(1)


def of_codes(vectors):
    made = Nearest(size=4, channels=WIDTH, normalize=True).double()
    return torch.func.functional_call(made, {"weight": vectors}, (OTHER.reshape(4, WIDTH, 1, 1),)).codebook


def as_image(vectors):
    return vectors[:, None, :, None].clamp(-1.0, 1.0)


# What divides by the length of vectors (4, 6), and how much longer a gradient can become. info_nce and cosine compare a
# row with at most four others, each of length at most 1.
USERS = {
    "unit": (unit, 1e4),
    "latents": (of_latents, 1e4),
    "codes": (of_codes, 1e4),
    "disentangle": (lambda v: cosines(v[:, :, None, None], OTHER[:, :, None, None]), 1e4),
    "cosine": (lambda v: cosine(v, OTHER, reduction="none"), 1e4),
    "info_nce": (lambda v: info_nce(v, OTHER), 1e4),
    "face_id": (lambda v: face_id(as_image(v), as_image(OTHER / 4.0), extractor=Embed(), reduction="none"), 1e4),
    "pull_away": (lambda v: pull_away(torch.cat([v, OTHER])), 1e4),
    "lpips": (lpips_unit, 1e6),
}
every_user = pytest.mark.parametrize(("measure", "bound"), USERS.values(), ids=USERS)


@every_user
@pytest.mark.parametrize("length", [1e-2, 1.0])
def test_away_from_zero_the_gradient_is_the_numeric_one(measure, bound, length):
    vectors = (length * OTHER.flip(0) / OTHER.norm(dim=1).max()).requires_grad_()
    assert torch.autograd.gradcheck(measure, (vectors,), eps=1e-6 * length, atol=1e-4)


@every_user
@pytest.mark.parametrize("length", [0.0, 1e-300, 1e-30, 1e-12, 1e-8, 1e-5, 9e-5])
def test_the_gradient_is_bounded_at_and_around_zero(measure, bound, length):
    vectors = (length * OTHER.flip(0)).requires_grad_()
    values = measure(vectors)
    upstream = torch.randn_like(values)
    (gradient,) = torch.autograd.grad(values, vectors, upstream)
    assert values.isfinite().all()
    assert gradient.isfinite().all()
    assert gradient.norm() <= 1.01 * bound * max(upstream.norm(), 1.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_vector_with_a_direction_is_divided_by_its_length_alone(dtype):
    vectors = (10.0 ** torch.arange(-3, 4)[:, None] * OTHER[0]).to(dtype)
    length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    assert torch.equal(unit(vectors), vectors / length)
    assert not unit(torch.zeros(2, 3, dtype=dtype)).any()
