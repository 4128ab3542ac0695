"""Freezing: a network made of buffers has no parameters, no gradients of its own and no place in a state dict."""

from collections.abc import Mapping

from torch import Tensor, nn


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
