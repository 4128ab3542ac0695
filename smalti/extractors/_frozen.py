"""Freezing: a network made of buffers has no parameters, no gradients of its own and no place in a state dict."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from smalti.extractors._weights import fill, random_tensors


def freeze(network: nn.Module) -> None:
    """Turns all parameters of ``network`` into buffers and keeps every buffer out of state dicts; in place.

    It still moves and changes its type with its parent, and gradients still pass through to its input.
    """
    for module in network.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                del module._parameters[name]
                module.register_buffer(name, parameter.detach(), persistent=False)
        module._non_persistent_buffers_set.update(module._buffers)


def named_weights(network: nn.Module) -> Mapping[str, Tensor]:
    """Name -> floating buffer of a frozen network: counters of normalisations and positions are no weights."""
    return {name: buffer for name, buffer in network.named_buffers() if buffer.is_floating_point()}


def freeze_filled(
    network: nn.Module, weights: str | Sequence[str], read: Callable[[], Mapping[str, Tensor]], source: str
) -> None:
    """Freezes ``network`` and fills it, in place; on the meta device nothing is filled or read.

    Args:
        network: whose parameters become buffers.
        weights: ``random``, or anything else for those that ``read`` gives.
        read: gives every weight by its name.
        source: where they come from, for the message if they do not fit.
    """
    freeze(network)
    expected = named_weights(network)
    if not any(buffer.is_meta for buffer in expected.values()):
        fill(expected, random_tensors(expected) if weights == "random" else read(), source)
