"""What a step computes and what it leaves out, by counting calls; the bench compares equal work."""

import psutil
import pytest
import torch

from smalti.bench.measure import textbook
from smalti.bench.step import OurStep, _networks, recipe_of

IMAGES = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)


def counted(calls, name, module):
    module.register_forward_hook(lambda *_: calls.__setitem__(name, calls.get(name, 0) + 1))


def our_step(start):
    small = ("discriminator.channels=4", "discriminator.layers=1", "engine.device=cpu")
    step = OurStep(recipe_of(32, start, tiny=True, more=small), IMAGES)
    calls: dict[str, int] = {}
    counted(calls, "decoder", step.model.decoder)
    counted(calls, "discriminator", step.phases["discriminator"].network)
    return step, calls


def test_before_its_start_the_discriminator_is_never_called():
    step, calls = our_step(start=10)
    for _ in range(2):
        step()
    assert calls == {"decoder": 2}


def test_a_step_runs_the_autoencoder_once_where_the_textbook_runs_it_twice():
    step, calls = our_step(start=0)
    plain = textbook("textbook_step").Step(*_networks(step))
    step()
    assert calls == {"decoder": 1, "discriminator": 3}
    twice: dict[str, int] = {}
    counted(twice, "decoder", plain.model.decoder)
    counted(twice, "discriminator", plain.discriminator)
    before = [p.detach().clone() for p in (*plain.model.parameters(), *plain.discriminator.parameters())]
    plain(IMAGES.float() / 127.5 - 1)
    assert (twice["decoder"], twice["discriminator"]) == (2, 3)
    after = [*plain.model.parameters(), *plain.discriminator.parameters()]
    moved = [bool((one != other).any()) for one, other in zip(before, after, strict=True)]
    assert sum(moved) > 0.8 * len(moved)  # a bias in front of a softmax or of batch statistics has no gradient


def nodes(tensor):
    """Number of nodes of the autograd graph behind it."""
    seen, waiting = set(), [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
    return len(seen)


@pytest.mark.parametrize("steps", [6, pytest.param(200, marks=pytest.mark.slow)])
def test_the_graph_of_a_step_does_not_grow(steps):
    from smalti.objectives.weight import Clock

    step, _ = our_step(start=0)
    batch = step.players["generator"].prepare(step.batch, Clock())
    sizes = []
    for _ in range(steps):
        step()
        sizes.append(nodes(step.phases["generator"](batch, Clock(step=step.count, updates=step.count))[0]))
    assert len(set(sizes)) == 1


@pytest.mark.slow
def test_resident_memory_does_not_grow():
    """Graphs or batches that stay alive would add to it at every step."""
    step, _ = our_step(start=0)
    for _ in range(50):
        step()
    before = psutil.Process().memory_info().rss
    for _ in range(200):
        step()
    assert psutil.Process().memory_info().rss - before < 8 * 2**20
