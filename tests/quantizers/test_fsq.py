"""FSQ rounds each channel as published, and an index is a number of mixed radix."""

import numpy as np
import pytest
import torch

from smalti.quantizers.fsq import FSQ

LEVELS = [[8, 5, 5, 5], [2, 3], [7], [6, 2, 9, 4]]
SLOPES = {"tanh": lambda x: 1 / np.cosh(x) ** 2, "sigmoid": lambda x: 0.8 / np.cosh(0.8 * x) ** 2}


def latents(channels, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(3, channels, 5, 4, dtype=dtype, generator=generator)


def published(z, levels, bound):
    """Bounded latents in units of the values, codes and indices, by numpy."""
    levels = np.array(levels).reshape(1, -1, 1, 1)
    offset = np.where(levels % 2 == 1, 0.0, 0.5)
    half = (levels - 1) * (1 - 1e-3) / 2
    x = z + np.tan(offset / half)
    bounded = half * (np.tanh(x) if bound == "tanh" else 2 / (1 + np.exp(-1.6 * x)) - 1) - offset
    digits = np.rint(bounded) + levels // 2
    radix = np.concatenate([[1], np.cumprod(levels.flatten())[:-1]]).reshape(levels.shape)
    slope = half * SLOPES[bound](x) / (levels // 2)
    return bounded / (levels // 2), (digits - levels // 2) / (levels // 2), (digits * radix).sum(axis=1), slope


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("bound", ["tanh", "sigmoid"])
def test_equals_the_published_formula(levels, bound):
    quantizer, z = FSQ(levels=levels, bound=bound).double(), latents(len(levels)).requires_grad_()
    record = quantizer(z)
    compared, codes, indices, slope = published(z.detach().numpy(), levels, bound)
    torch.testing.assert_close(record.z.detach(), torch.from_numpy(compared))
    torch.testing.assert_close(record.quantized, torch.from_numpy(codes))
    assert torch.equal(record.latent, record.quantized)
    assert torch.equal(record.indices, torch.from_numpy(indices).long())
    # The gradient of the estimator is that of the bounded latent.
    weights = torch.randn_like(z)
    torch.testing.assert_close(torch.autograd.grad(record.latent, z, weights)[0], weights * torch.from_numpy(slope))


@pytest.mark.parametrize("bound", ["tanh", "sigmoid"])
def test_all_1000_codes_of_the_default_are_reached_and_found_again(bound):
    quantizer = FSQ(bound=bound).eval()
    everything = torch.arange(1000).view(1, 25, 40)
    codes = quantizer.lookup(everything)
    assert quantizer.size == 1000 == len(codes.permute(0, 2, 3, 1).reshape(-1, 4).unique(dim=0))
    assert codes.aminmax() == (-1.0, 1.0)
    # Values of the latent whose bounded form is the code.
    half = torch.tensor([4, 2, 2, 2]).view(1, 4, 1, 1)
    offset = torch.tensor([0.5, 0, 0, 0]).view(half.shape)
    reach = 0.999 * torch.tensor([3.5, 2, 2, 2]).view(half.shape)
    inverse = torch.atanh((codes * half + offset).clamp(-reach + 0.01, reach - 0.01) / reach)
    record = quantizer(inverse / (1.0 if bound == "tanh" else 0.8) - torch.tan(offset / reach))
    assert torch.equal(record.indices, everything)
    assert torch.equal(record.latent, codes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", LEVELS)
def test_lookup_equals_the_latent_bit_for_bit(levels, dtype):
    quantizer = FSQ(levels=levels).to(dtype).eval()
    record = quantizer(latents(len(levels), dtype))
    assert record.latent.dtype == dtype
    assert torch.equal(quantizer.lookup(record.indices), record.latent)
    assert torch.equal(quantizer.train()(latents(len(levels), dtype)).latent, record.latent)


def test_the_first_channel_is_the_least_significant_digit():
    codes = FSQ(levels=[3, 2]).lookup(torch.arange(6).view(1, 1, 6))
    assert codes[0, :, 0].T.tolist() == [[-1, -1], [0, -1], [1, -1], [-1, 0], [0, 0], [1, 0]]


def test_more_codes_than_int64_holds_are_refused():
    assert FSQ(levels=[2] * 62).size == 2**62
    with pytest.raises(ValueError, match=r"9,?223,?372,?036,?854,?775,?808 codes, expected at most 2\^62"):
        FSQ(levels=[2] * 63)
    with pytest.raises(ValueError, match="expected at most"):
        FSQ(levels=[10**9] * 1000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": []}, r"levels=\[\]"),
        ({"levels": [8, 1]}, r"levels=\[8, 1\]: 1 values, expected at least 2"),
        ({"bound": "atanh"}, "bound='atanh': expected 'tanh' or 'sigmoid'"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        FSQ(**options)


def test_a_latent_that_is_not_finite_has_no_code():
    z = latents(4)
    z[0, 1, 2, 3], z[1, 0, 0, 0], z[2, 3, 4, 3] = float("nan"), float("inf"), -float("inf")
    record = FSQ()(z)
    finite = torch.isfinite(z).all(dim=1)
    assert torch.equal(record.indices == -1, ~finite)
    assert torch.equal(torch.isnan(record.latent).all(dim=1), ~finite)
    assert torch.isfinite(record.latent.permute(0, 2, 3, 1)[finite]).all()


def test_an_index_that_is_no_code_is_refused():
    for index in (-1, 1000):
        with pytest.raises(IndexError, match=f"{index}.*expected 0 to 999"):
            FSQ().lookup(torch.tensor([[[0, index]]]).sort().values)


def test_mean_is_that_of_the_codes_in_use():
    quantizer = FSQ(levels=[4, 3]).double()
    every = quantizer.lookup(torch.arange(12).view(1, 1, 12))
    torch.testing.assert_close(quantizer.mean(), every.mean(dim=(0, 2, 3)))
    record = quantizer(latents(2))
    quantizer.update([record])
    torch.testing.assert_close(quantizer.mean(), record.quantized.mean(dim=(0, 2, 3)))
    # More codes than are counted: the plain mean.
    many = FSQ(levels=[4, 2**23]).double()
    many.update([many(latents(2))])
    assert many.usage() == [{}]
    torch.testing.assert_close(many.mean(), torch.tensor([-1 / 4, -(2.0**-23)], dtype=torch.float64))


def test_it_means_nothing_for_losses_that_learn_codes():
    quantizer = FSQ()
    assert quantizer(latents(4)).terms == quantizer.terms == {"disentangle"}
    assert not list(quantizer.parameters())
    with pytest.raises(ValueError, match="no soft assignment"):
        quantizer(latents(4)).soft_assignment(1.0)


def test_autocast_changes_nothing():
    z, quantizer = latents(4, torch.float32), FSQ()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = quantizer(z)
    assert torch.equal(cast.z, quantizer(z).z)
    assert quantizer(z.bfloat16()).latent.dtype == torch.float32
