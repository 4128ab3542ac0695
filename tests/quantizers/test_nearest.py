"""What changes a codebook, and what does not: moving averages, k-means, revival, usage, precision, estimators."""

import copy

import pytest
import torch

from smalti.bottlenecks.tokens import Tokens
from smalti.nn.clustering import kmeans
from smalti.nn.freezing import freeze
from smalti.nn.unit import unit
from smalti.quantizers.nearest import EMA, Revival
from tests.quantized import branch, one_codebook, the_quantizer


def quantizer(size=8, channels=3, **options):
    made = one_codebook(channels, size, channels, projection=False, **options)
    return made.double()


def latents(batch=4, channels=3, dtype=torch.float64):
    return torch.randn(batch, channels, 3, 5, dtype=dtype)


def tokens(z):
    return z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])


def equal(one, other):
    return all(torch.equal(one[key], other[key]) for key in one)


OPTIONS = [
    {"ema": EMA()},
    {"ema": EMA(), "normalize": True},
    {"init": "kmeans", "ema": EMA(decay=0.5)},
    {"init": "kmeans"},
    {"revival": Revival(patience=2)},
    {"ema": EMA(decay=0.9), "revival": Revival(patience=1), "init": "normal"},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_accumulation_equals_the_full_batch(options):
    whole = quantizer(**options)
    if options.get("init") == "kmeans":
        whole(latents())  # starts; see test_the_first_micro_batch_starts_kmeans
    parts = copy.deepcopy(whole)
    for _ in range(3):
        z = latents()
        whole.update([whole(z)])
        parts.update([parts(chunk) for chunk in z.split(1)])
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", OPTIONS)
def test_a_restored_codebook_goes_on_bit_for_bit(options):
    made, batches = quantizer(**options), [latents() for _ in range(6)]
    for z in batches[:3]:
        made.update([made(z)])
    restored = quantizer(**options)
    restored.load_state_dict(copy.deepcopy(made.state_dict()))
    for z in batches[3:]:
        made.update([made(z)])
        torch.rand(7)  # other draws between updates change nothing
        restored.update([restored(z)])
    assert equal(made.state_dict(), restored.state_dict())


@pytest.mark.parametrize("options", [{}, *OPTIONS])
def test_forward_changes_no_state_but_that_kmeans_starts(options):
    made = quantizer(**options)
    if options.get("init") == "kmeans":
        made(latents())
    before = copy.deepcopy(made.state_dict())
    for _ in range(2):
        made(latents())
    assert equal(before, made.state_dict())


@pytest.mark.parametrize("normalize", [False, True])
def test_moving_average_law(normalize):
    """After one update from the start N = 1, m = e: e' = (g e + (1 - g) sum z) / (g + (1 - g) n), smoothed by eps."""
    ema = EMA(decay=0.9, eps=1e-5)
    made, z = quantizer(ema=ema, normalize=normalize, init="normal"), latents()
    old = the_quantizer(made).weight.data.clone()
    output = made(z)
    record = output.codebooks["codebook"]
    assert torch.equal(record.codebook, the_quantizer(made).rows()), "quantises with the old codebook"
    made.update([output])
    one_hot = torch.nn.functional.one_hot(record.indices.flatten(), 8).double()
    counts = 0.9 + 0.1 * one_hot.sum(dim=0)
    sums = 0.9 * old + 0.1 * one_hot.T @ tokens(record.z)
    smoothed = (counts + 1e-5) / (counts.sum() + 8e-5) * counts.sum()
    torch.testing.assert_close(the_quantizer(made).weight.data, sums / smoothed[:, None])
    assert not the_quantizer(made).weight.requires_grad


def test_moving_averages_find_the_means_of_clusters():
    centres = torch.tensor([[4.0, 0.0], [-4.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    made = quantizer(size=3, channels=2, ema=EMA(decay=0.8))
    the_quantizer(made).replace(centres * 0.7)
    for _ in range(60):
        points = centres.repeat(20, 1) + 0.01 * torch.randn(60, 2, dtype=torch.float64)
        made.update([made(points.T.reshape(1, 2, 6, 10))])
    torch.testing.assert_close(the_quantizer(made).weight.data, centres, atol=0.02, rtol=0.0)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("ema", [None, EMA(decay=0.9)])
def test_kmeans_starts_before_the_first_batch_is_quantized(normalize, ema):
    made, z = quantizer(init="kmeans", normalize=normalize, ema=ema), latents()
    output = made(z)
    record = output.codebooks["codebook"]
    centres = kmeans(tokens(record.z), 8)
    centres = unit(centres) if normalize else centres
    assert torch.equal(the_quantizer(made).weight.data, centres)
    assert torch.equal(record.codebook, the_quantizer(made).rows())
    distances = torch.cdist(tokens(record.z.detach()), centres)
    assert torch.equal(record.indices.flatten(), distances.argmin(dim=1))
    assert (tokens(record.latent - record.z).norm(dim=1) <= distances.amin(dim=1) + 1e-6).all()
    assert the_quantizer(made).initialized
    if ema is not None:
        assert torch.equal(the_quantizer(made).ema_sums, centres)
        assert (the_quantizer(made).ema_counts == 1.0).all()
    made.update([output])
    assert torch.equal(the_quantizer(made).weight.data, centres) is (ema is None)


def test_kmeans_starts_once():
    made = quantizer(init="kmeans")
    made(latents())
    started = the_quantizer(made).weight.data.clone()
    for _ in range(2):
        made.update([made(latents())])
    copied, loaded = copy.deepcopy(made), quantizer(init="kmeans")
    loaded.load_state_dict(made.state_dict())
    for again in (made, copied, loaded):
        again(latents())
        assert torch.equal(the_quantizer(again).weight.data, started)


def test_the_first_micro_batch_starts_kmeans():
    made, z = quantizer(init="kmeans"), latents()
    outputs = [made(part) for part in z.split(2)]
    expected = kmeans(tokens(z[:2]), 8)
    for output in outputs:
        assert torch.equal(output.codebooks["codebook"].codebook, expected)
    made.update(outputs)
    assert torch.equal(the_quantizer(made).weight.data, expected)


def test_evaluation_and_a_frozen_codebook_do_not_start_kmeans():
    for stop in (lambda made: made.eval(), freeze):
        made = quantizer(init="kmeans")
        before = copy.deepcopy(made.state_dict())
        stop(made)
        made(latents())
        assert equal(before, made.state_dict())
    unset = quantizer(init="kmeans").eval()
    unset(latents())
    unset.train()(latents())
    assert the_quantizer(unset).initialized, "the first batch in training counts, not the first one seen"


def test_kmeans_starts_from_what_is_finite_and_waits_without():
    made, z = quantizer(init="kmeans"), latents()
    before = copy.deepcopy(made.state_dict())
    made(z * float("nan"))
    assert equal(before, made.state_dict())
    z[1] = float("inf")
    made(z)
    assert torch.equal(the_quantizer(made).weight.data, kmeans(tokens(z[[0, 2, 3]]), 8))
    assert the_quantizer(made).weight.isfinite().all()


def test_kmeans_is_a_fixed_point_and_repeats():
    points = torch.randn(200, 2, dtype=torch.float64)
    centres = kmeans(points, 5, iterations=100)
    nearest = torch.cdist(points, centres).argmin(dim=1)
    means = torch.stack([points[nearest == k].mean(dim=0) for k in range(5)])
    torch.testing.assert_close(centres, means)
    torch.rand(3)
    assert torch.equal(centres, kmeans(points, 5, iterations=100))
    assert not torch.equal(kmeans(points, 5, iterations=0, seed=1), kmeans(points, 5, iterations=0, seed=2))


def test_kmeans_with_fewer_points_than_clusters():
    assert kmeans(torch.randn(3, 2), 7).isfinite().all()
    assert kmeans(torch.full((3, 2), float("nan")), 7) is None
    assert kmeans(torch.zeros(0, 2), 7) is None


@pytest.mark.parametrize("ema", [None, EMA(decay=0.9)])
def test_dead_codes_move_onto_current_latents(ema):
    made = quantizer(revival=Revival(patience=2), ema=ema)
    far = torch.full((8, 3), 100.0, dtype=torch.float64)
    far[0] = 0.0
    the_quantizer(made).replace(far)
    z = latents()
    made.update([made(z)])
    assert torch.equal(the_quantizer(made).weight.data[1:], far[1:]) or ema is not None
    made.update([made(z)])
    moved = the_quantizer(made).weight.data[1:]
    assert (moved[:, None] == tokens(z)).all(dim=2).any(dim=1).all()
    assert len(moved.unique(dim=0)) > 3, "not all on one latent"
    if ema is not None:
        assert (the_quantizer(made).ema_counts[1:] == 1.0).all()
        assert torch.equal(the_quantizer(made).ema_sums[1:], the_quantizer(made).weight.data[1:])


def test_usage_and_perplexity_count_exactly():
    made = quantizer(size=4, channels=1)
    the_quantizer(made).replace(torch.arange(4.0, dtype=torch.float64)[:, None])
    assert [value.item() for value in made.usage()["codebook"].values()] == [0.0, 0.0]
    made.update([made(torch.tensor([[[[0.0, 0.0, 1.0, 1.0]]]], dtype=torch.float64))])
    usage = made.usage()["codebook"]
    assert usage["usage"] == 0.5
    torch.testing.assert_close(usage["perplexity"].item(), 2.0)
    made.update([made(torch.tensor([[[[2.0, 2.0, 3.0, 3.0]]]], dtype=torch.float64))])
    torch.testing.assert_close(made.usage()["codebook"]["perplexity"].item(), 4.0)


def test_usage_forgets_what_left_the_window():
    made = quantizer(size=4, channels=1, usage_window=4)
    the_quantizer(made).replace(torch.arange(4.0, dtype=torch.float64)[:, None])

    def see(code):
        made.update([made(torch.full((1, 1, 1, 2), code, dtype=torch.float64))])
        return made.usage()["codebook"]["usage"].item() * 4

    assert see(0.0) == 1
    assert [see(1.0) for _ in range(3)] == [2, 2, 2]
    assert see(1.0) == 1, "the first half is forgotten after the second is full"


def test_indices_do_not_depend_on_autocast():
    made, z = quantizer().float(), latents(dtype=torch.float32)
    expected = made(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = made(z)
    assert torch.equal(output.indices, expected.indices)
    assert output.latent.dtype == torch.float32


@pytest.mark.parametrize("normalize", [False, True])
def test_latent_is_the_code_bit_for_bit_in_training(normalize):
    made, z = quantizer(normalize=normalize).float(), latents(dtype=torch.float32)
    output = made(z)
    assert torch.equal(output.latent, output.codebooks["codebook"].quantized)
    assert torch.equal(output.latent, made.lookup(output.indices))
    assert output.latent.is_contiguous()


@pytest.mark.parametrize(
    ("options", "reaches_codebook"),
    [
        ({}, False),
        ({"estimator": "gradient_copy"}, False),
        ({"estimator": "gradient_copy", "codebook_gradient": True}, True),
    ],
)
def test_estimators_hand_on_the_gradient_as_tabulated(options, reaches_codebook):
    made, z = quantizer(init="normal", **options), latents().requires_grad_()
    output = made(z)
    upstream = torch.randn_like(output.latent)
    output.latent.backward(upstream)
    assert torch.equal(z.grad, upstream)
    gradient = the_quantizer(made).weight.grad
    if not reaches_codebook:
        assert gradient is None
        return
    expected = torch.zeros(8, 3, dtype=torch.float64).index_add_(0, output.indices.flatten(), tokens(upstream))
    torch.testing.assert_close(gradient, expected)


def test_normalised_codes_are_unit_vectors_with_gradient_through_the_norm():
    made, z = quantizer(normalize=True), latents().requires_grad_()
    record = made(z).codebooks["codebook"]
    for value, axis in ((record.z, 1), (record.codebook, 1), (record.latent, 1)):
        torch.testing.assert_close(value.norm(dim=axis), torch.ones_like(value.norm(dim=axis)))
    (record.quantized - record.z.detach()).square().sum().backward()
    weight = the_quantizer(made).weight
    torch.testing.assert_close(
        (weight.grad * weight).sum(dim=1), torch.zeros(8, dtype=torch.float64), atol=1e-9, rtol=0
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"in_channels": 4, "projection": False},
            "projection=False: expected quantizer.channels=3 equal to the width 4",
        ),
        ({"size": 0}, "size=0: 0 codes, expected 1 to"),
        ({"channels": 0}, "channels=0: expected a positive"),
        ({"temperature": -1.0}, "temperature=-1.0: expected 0 or a positive number"),
        ({"estimator": "rotate"}, "estimator='rotate': expected 'straight_through', 'gradient_copy' or 'rotation'"),
        ({"init": "zeros"}, "init='zeros': expected 'uniform', 'normal' or 'kmeans'"),
        ({"codebook_gradient": True}, "codebook_gradient=True: expected estimator='gradient_copy'"),
        ({"codebook_gradient": True, "estimator": "gradient_copy", "ema": EMA()}, "expected no ema"),
        ({"usage_window": 0}, "usage_window=0: expected a positive"),
    ],
)
def test_impossible_options_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        one_codebook(**{"in_channels": 3, "channels": 3, "size": 8, **options})


def test_lookup_wants_one_codebook():
    with pytest.raises(ValueError, match=r"indices with shape \(1, 2, 2\): expected \(B, 1, h, w\)"):
        quantizer().lookup(torch.zeros(1, 2, 2, dtype=torch.int64))


def test_codebook_has_the_name_it_was_given():
    made = Tokens(in_channels=3, codebooks={"visual": branch(8, 3)}).double()
    output = made(latents())
    made.update([output])
    assert list(output.codebooks) == list(made.codebook_sizes) == list(made.usage()) == ["visual"]
