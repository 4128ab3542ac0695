"""A critic with a gradient penalty finds the distance of two shifted samples, through the losses of this package."""

from pathlib import Path
from typing import Any

import pytest
import torch

from smalti.discriminators.mlp import MLP
from smalti.losses.gradient_penalty import GradientPenalty
from smalti.losses.wgan import WGANDiscriminator
from smalti.metrics.wasserstein import wasserstein


@pytest.mark.parametrize("shift", [0.5, 1.0])
def test_trained_critic_comes_within_a_tenth_of_the_distance(shift: float) -> None:
    torch.manual_seed(0)
    real = torch.randn(64, 1, 1, 1, dtype=torch.float64)
    made = real[torch.randperm(64)] - shift
    critic = MLP(image_size=1, in_channels=1, widths=(32, 32)).double()
    # In one dimension slope -1 fulfils the penalty as well as slope 1, with a wall of height 10 at 0 between them.
    torch.nn.init.zeros_(critic.main[-1].weight)
    optimizer = torch.optim.Adam(critic.parameters(), lr=5e-3, betas=(0.5, 0.9))
    loss, penalty = WGANDiscriminator(), GradientPenalty()
    for _ in range(500):
        optimizer.zero_grad()
        value: Any = loss(critic(real).logits, critic(made).logits) + 10.0 * penalty(critic, real, made)
        value.backward()
        optimizer.step()
    estimate = -loss(critic(real).logits, critic(made).logits).item()
    # the balance of -W s + 10 (s - 1)^2 lies at s = 1 + W / 20: the estimate is too large by that factor
    assert estimate == pytest.approx(wasserstein(real, made).item(), rel=0.1)


def test_page_names_only_options_that_exist() -> None:
    page = (Path(__file__).parents[2] / "docs" / "wgan.md").read_text()
    from smalti.losses import Loss
    from smalti.registry import names

    for name in ("gradient_penalty", "lipschitz_penalty", "r1", "r2", "hinge"):
        assert name in page
        assert name in names(Loss)
