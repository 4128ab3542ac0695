"""Parts of a network that stay as they are while the rest is trained."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class Freezable:
    """A module with state that changes outside of gradients; it must not while ``frozen``."""

    frozen: bool = False


def freeze(module: nn.Module) -> None:
    """Takes a network out of training: no gradients, no new normalisation statistics, no codes that move.

    Gradients still pass through it, and what acts in training mode (sampling, estimators, dropout) still does.

    >>> layer = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    >>> freeze(layer)
    >>> any(parameter.requires_grad for parameter in layer.parameters())
    False
    """
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    for part in module.modules():
        if isinstance(part, Freezable):
            part.frozen = True
        if isinstance(part, _BatchNorm):
            part.register_forward_pre_hook(_in_evaluation)


def _in_evaluation(module: nn.Module, inputs: object) -> None:
    # At each pass: whoever calls .train() on the whole network would set it back.
    module.eval()


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Inside, a network is in evaluation mode; afterwards each of its modules is in the mode it was in.

    >>> network = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5).eval())
    >>> with evaluating(network):
    ...     inside = [module.training for module in network]
    >>> inside, [module.training for module in network]
    ([False, False], [True, False])
    """
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
