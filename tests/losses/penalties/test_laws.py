"""What penalties keep: full precision, second derivatives, zero slopes, one size of batches, state in update only."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smalti.losses.approximate_r1 import ApproximateR1, approximate_r1
from smalti.losses.approximate_r2 import approximate_r2
from smalti.losses.consistency import Consistency, mirror_and_shift
from smalti.losses.dragan import DRAGAN, dragan
from smalti.losses.gradient_penalty import GradientPenalty, gradient_penalty
from smalti.losses.lipschitz_penalty import lipschitz_penalty
from smalti.losses.path_length import PathLength, path_lengths
from smalti.losses.r1 import R1, r1
from smalti.losses.r2 import r2
from smalti.losses.wgan_div import WGANDiv, wgan_div
from smalti.losses.zero_centered_penalty import zero_centered_penalty
from smalti.objectives import GeneratorPhase, Term
from smalti.outputs import DiscriminatorOutput, GeneratorOutput
from tests.objectives.toys import NOW


class Critic(nn.Module):
    """Convolution, softplus, mean."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        return DiscriminatorOutput(logits=F.softplus(self.conv(images)).mean(dim=(2, 3)).sum(dim=1, keepdim=True))


def linear(steepness):
    return lambda images: DiscriminatorOutput(logits=steepness * images.flatten(1).sum(dim=1))


def images(batch=3):
    return 2.0 * torch.rand(2, batch, 3, 8, 8) - 1.0


PENALTIES = {
    "gradient_penalty": lambda critic, x, y: gradient_penalty(critic, x, y, torch.full((3,), 0.3)),
    "lipschitz_penalty": lambda critic, x, y: lipschitz_penalty(critic, 1e3 * x, y, torch.full((3,), 0.3)),
    "zero_centered_penalty": lambda critic, x, y: zero_centered_penalty(critic, x, y, torch.full((3,), 0.3)),
    "r1": lambda critic, x, y: r1(critic, x),
    "r2": lambda critic, x, y: r2(critic, y),
    "wgan_div": wgan_div,
    "dragan": lambda critic, x, y: dragan(critic, x, torch.full_like(x, 0.3), y),
    "approximate_r1": lambda critic, x, y: approximate_r1(critic, x, y, sigma=0.1),
}
every_penalty = pytest.mark.parametrize("name", PENALTIES)


@every_penalty
def test_precision_is_full_whatever_surrounds_it(name):
    critic, (real, fake) = Critic(), images()
    expected = PENALTIES[name](critic, real, fake)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(PENALTIES[name](critic, real, fake), expected)
    assert PENALTIES[name](critic, real.bfloat16(), fake.bfloat16()).dtype == torch.float32


@every_penalty
def test_value_without_autograd_is_the_same_and_has_no_graph(name):
    critic, (real, fake) = Critic(), images()
    with torch.no_grad():
        value = PENALTIES[name](critic, real, fake)
    assert not value.requires_grad
    torch.testing.assert_close(value, PENALTIES[name](critic, real, fake).detach())


@every_penalty
def test_slope_of_a_flat_critic_has_finite_gradients(name):
    # the square root of a sum of squares has slope nan at 0
    critic, (real, fake) = Critic(), images()
    nn.init.zeros_(critic.conv.weight)
    PENALTIES[name](critic, real, fake).backward()
    assert critic.conv.weight.grad.isfinite().all()


@every_penalty
def test_leaves_no_gradient_behind_by_itself(name):
    critic, (real, fake) = Critic(), images()
    PENALTIES[name](critic, real, fake)
    assert all(parameter.grad is None for parameter in critic.parameters())


def test_critic_with_attention_can_be_penalised():
    class Attentive(nn.Module):
        def __init__(self):
            super().__init__()
            self.project = nn.Linear(3, 24)

        def forward(self, images):
            tokens = self.project(images.flatten(2).transpose(1, 2)).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
            return DiscriminatorOutput(logits=F.scaled_dot_product_attention(*tokens).mean(dim=(1, 2, 3)))

    critic, (real, _) = Attentive(), images()
    r1(critic, real).backward()
    assert critic.project.weight.grad.abs().sum() > 0.0


def test_slope_of_a_linear_critic_is_known():
    real, fake = images()
    values = 3 * 8 * 8  # of an image: its slope is steepness x sqrt(192)
    critic = linear(0.5)
    length = 0.5 * values**0.5
    assert r1(critic, real).item() == pytest.approx(length**2)
    assert gradient_penalty(critic, real, fake).item() == pytest.approx((length - 1.0) ** 2, rel=1e-5)
    assert wgan_div(critic, real, fake, power=4.0).item() == pytest.approx(2.0 * length**4, rel=1e-5)
    assert dragan(critic, real).item() == pytest.approx((length - 1.0) ** 2, rel=1e-5)
    # per pixel: the length over channels only, as MMagic's default has it
    assert gradient_penalty(critic, real, fake, norm="pixel").item() == pytest.approx((0.5 * 3**0.5 - 1.0) ** 2)
    assert r1(critic, real, norm="pixel").item() == pytest.approx(length**2 / 64.0)
    flat = linear(0.5 / values**0.5)
    assert lipschitz_penalty(flat, real, fake).item() == 0.0
    assert gradient_penalty(flat, real, fake).item() == pytest.approx(0.25, rel=1e-5)


def test_reductions_are_of_one_value_a_sample_or_a_pixel():
    critic, (real, fake) = Critic(), images()
    each = r1(critic, real, reduction="none")
    assert each.shape == (3,)
    torch.testing.assert_close(r1(critic, real), each.mean())
    epsilon = torch.rand(3)
    assert GradientPenalty(norm="pixel", reduction="none")(critic, real, fake, epsilon).shape == (3, 8, 8)
    torch.testing.assert_close(r1(critic, real[:1]), each[0])


def test_epsilon_is_the_share_of_the_real_image():
    critic, (real, fake) = Critic(), images()
    for share, at in ((1.0, real), (0.0, fake)):
        value = zero_centered_penalty(critic, real, fake, torch.full((3, 1, 1, 1), share))
        torch.testing.assert_close(value, r1(critic, at))
    assert dragan(critic, real, torch.ones_like(real)).item() == pytest.approx(
        gradient_penalty(critic, real, real).item()
    )


def test_batches_of_unequal_size_are_refused():
    real, fake = images()
    with pytest.raises(ValueError, match="must be equal to interpolate"):
        gradient_penalty(Critic(), real, fake[:2])
    assert wgan_div(Critic(), real, fake[:2]).isfinite()


def test_a_mask_says_where_a_penalty_acts():
    critic, (real, _) = Critic(), images()
    ones = torch.ones(3, 1, 8, 8)
    for norm in ("sample", "pixel"):
        torch.testing.assert_close(r1(critic, real, ones, norm=norm), r1(critic, real, norm=norm))
        assert r1(critic, real, 0.0 * ones, norm=norm).item() == 0.0
    left = ones.clone()
    left[..., 4:] = 0.0
    each = r1(critic, real, norm="pixel", reduction="none")
    torch.testing.assert_close(r1(critic, real, left, norm="pixel"), each[..., :4].mean())


MASKED = {
    "gradient_penalty": lambda critic, x, mask, **o: gradient_penalty(critic, x, 0.5 * x, HALF, mask, **o),
    "lipschitz_penalty": lambda critic, x, mask, **o: lipschitz_penalty(critic, 99.0 * x, x, HALF, mask, **o),
    "zero_centered_penalty": lambda critic, x, mask, **o: zero_centered_penalty(critic, x, 0.5 * x, HALF, mask, **o),
    "r1": r1,
    "r2": r2,
    "GradientPenalty": lambda critic, x, mask, **o: GradientPenalty(**o)(critic, x, 0.5 * x, HALF, mask),
    "R1": lambda critic, x, mask, **o: R1(**o)(critic, x, mask),
}
HALF = torch.full((3,), 0.5)
every_masked = pytest.mark.parametrize("name", MASKED)


@every_masked
@pytest.mark.parametrize("norm", ["sample", "pixel"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum", "batch_sum"])
def test_a_mask_may_have_the_shape_of_the_images(name, norm, reduction):
    critic, (real, _) = Critic(), images()
    options = {"norm": norm, "reduction": reduction}
    soft = torch.rand(3, 1, 8, 8) * (torch.rand(3, 1, 8, 8) > 0.3)
    for mask in (soft, soft > 0.5, torch.rand(3)):
        whole = mask.reshape(*mask.shape, *[1] * (4 - mask.ndim)).expand_as(real)
        torch.testing.assert_close(
            MASKED[name](critic, real, whole, **options), MASKED[name](critic, real, mask, **options)
        )


@pytest.mark.parametrize("norm", ["sample", "pixel"])
def test_a_channel_outside_the_mask_takes_no_part(norm):
    critic, (real, _) = Critic(), images()
    mask = torch.ones_like(real)
    mask[:, 1] = 0.0

    def blind(x):
        return critic(torch.stack([x[:, 0], real[:, 1], x[:, 2]], dim=1))

    # two of three channels are left: both values are divided by 2 / 3
    torch.testing.assert_close(r1(critic, real, mask, norm=norm), r1(blind, real, norm=norm) * 1.5)


@every_masked
@pytest.mark.parametrize("channels", ["equal", "each its own"])
def test_masked_gradients_are_those_of_the_masked_slope(name, channels):
    """MMagic's form: the mean over all pixels of the slope times the mask, divided by the mean of the mask."""
    critic, (real, _) = Critic().double(), images().double()
    critic.conv.weight.data.mul_(100.0)  # slopes on both sides of 1
    mask = (torch.rand(3, 1 if channels == "equal" else 3, 8, 8) > 0.4).double().expand(3, 3, 8, 8)
    outside = (1.0 - mask.amax(dim=1)).mean() / mask.mean()
    form, at, constant = {
        "gradient_penalty": (lambda length: (length - 1.0).square(), 0.75, outside),
        "lipschitz_penalty": (lambda length: F.relu(length - 1.0).square(), 50.0, 0.0),
    }.get(name.lower().replace("gradientpenalty", "gradient_penalty"), (torch.square, 1.0, 0.0))
    at = 0.75 if name == "zero_centered_penalty" else at
    x = (at * real).requires_grad_()
    (slope,) = torch.autograd.grad(critic(x).logits.sum(), x, create_graph=True)
    theirs = form(torch.linalg.vector_norm(slope * mask, dim=1)).mean() / mask.mean()
    ours = MASKED[name](critic, real, mask, norm="pixel")
    assert ours > 0.0
    torch.testing.assert_close(ours + constant, theirs)
    weights = [critic.conv.weight]
    for one, other in zip(torch.autograd.grad(ours, weights), torch.autograd.grad(theirs, weights), strict=True):
        torch.testing.assert_close(one, other)
        assert one.isfinite().all()


def test_a_mask_of_another_shape_is_refused_by_name():
    critic, (real, fake) = Critic(), images()
    for norm in ("sample", "pixel"):
        for shape in ((8, 8), (1, 3, 8, 8), (3, 2, 8, 8), (4,)):
            with pytest.raises(ValueError, match="mask with shape"):
                gradient_penalty(critic, real, fake, mask=torch.ones(shape), norm=norm)


def test_approximate_r1_is_r1_for_small_steps():
    torch.manual_seed(3)
    critic = Critic().double()
    real = images(1)[0].double()
    exact = r1(critic, real)
    many = real.expand(6000, -1, -1, -1)
    for approximation in (approximate_r1, approximate_r2):
        torch.testing.assert_close(approximation(critic, many, sigma=0.01), exact, rtol=0.06, atol=0.0)


def test_approximate_r1_asks_for_no_second_derivative():
    critic, (real, _) = Critic(), images()
    ApproximateR1()(critic, real).backward()
    assert critic.calls == 2


def test_consistency_compares_an_image_with_its_copy():
    critic, (real, fake) = Critic(), images()
    assert Consistency()(lambda x: DiscriminatorOutput(logits=0.0 * x.mean(dim=1)), real).item() == 0.0
    torch.manual_seed(1)
    moved = mirror_and_shift(real, 2)
    torch.manual_seed(1)
    value = Consistency(shift=2)(critic, real)
    expected = (critic(real).logits - critic(moved).logits).square().mean()
    torch.testing.assert_close(value, expected)
    torch.manual_seed(1)
    assert Consistency(shift=2)(critic, real, fake) > value


@pytest.mark.parametrize(
    "make",
    [
        lambda: R1(norm="image"),
        lambda: ApproximateR1(sigma=0.0),
        lambda: WGANDiv(power=0.5),
        lambda: DRAGAN(scale=-1.0),
        lambda: Consistency(shift=-1),
        lambda: PathLength(decay=0.0),
        lambda: PathLength(shrink=0),
    ],
)
def test_options_out_of_bounds_are_refused_by_name(make):
    with pytest.raises(ValueError, match=r"\w+=.+: expected"):
        make()


# --- path length ----------------------------------------------------------------------------------------------------
class ToyGenerator(nn.Module):
    """Noise (B, 4) -> latents w (B, 2, 3) -> images (B, 3, 4, 4)."""

    judged = "images"

    def __init__(self):
        super().__init__()
        self.mapping, self.synthesis = nn.Linear(4, 6), nn.Linear(6, 48)

    @property
    def last_layer(self):
        return self.synthesis.weight

    def sample(self, noise):
        latents = self.mapping(noise).tanh().unflatten(1, (2, 3))
        return GeneratorOutput(images=self.synthesis(latents.flatten(1)).reshape(-1, 3, 4, 4), latents=latents)

    def training_forward(self, batch):
        return self.sample(batch["noise"])


def test_path_length_is_taken_at_the_latents_a_generator_reports():
    generator, noise = ToyGenerator(), torch.randn(5, 4)
    drawn = torch.randn(5, 3, 4, 4)
    lengths = path_lengths(generator.sample, noise, drawn)
    slope = (drawn.flatten(1) / 4.0) @ generator.synthesis.weight
    torch.testing.assert_close(lengths, slope.norm(dim=1) / 2**0.5)


def test_path_length_survives_a_generator_that_stands_still():
    # NVlabs/stylegan2-ada-pytorch#133: the root of a sum of squares, without more, gives nan here
    generator = ToyGenerator()
    nn.init.zeros_(generator.synthesis.weight)
    PathLength()(generator.sample, torch.randn(2, 4)).total.backward()
    assert generator.synthesis.weight.grad.isfinite().all()


def test_path_length_of_images_without_latents_is_a_clear_error():
    with pytest.raises(ValueError, match="do not depend on its latents"):
        path_lengths(lambda z: torch.ones(2, 3, 4, 4, requires_grad=True), torch.zeros(2, 4))


def test_mean_path_length_moves_in_update_by_all_micro_batches():
    model, loss = ToyGenerator(), PathLength(decay=0.5, shrink=2)
    terms = [
        Term(name="plain", loss=lambda fake: fake.square().mean()),
        Term(name="path", loss=loss, inputs={"latents": "batch.noise"}),
    ]
    phase = GeneratorPhase(model, terms)
    reports = []
    for _ in range(2):
        batch = {"image": torch.zeros(4, 3, 4, 4), "noise": torch.randn(4, 4)}
        surrogate, report = phase(batch, NOW)
        surrogate.backward()
        reports.append(report)
    assert loss.mean.item() == 0.0
    assert model.mapping.weight.grad.abs().sum() > 0.0
    phase.update(reports)
    lengths = [report.terms["path"].parts["length"] for report in reports]
    torch.testing.assert_close(loss.mean, 0.5 * torch.stack(lengths).mean())
    assert "losses.path.mean" in phase.state_dict()
    loss.update([])
    torch.testing.assert_close(loss.mean, 0.5 * torch.stack(lengths).mean())
