"""Sums, means and broadcasts over the ranks of a job; each is the identity when there is only one."""

import torch
from torch import Tensor
from torch import distributed as dist


def is_distributed() -> bool:
    """Whether a process group exists."""
    return dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """Number of ranks, 1 without a process group."""
    return dist.get_world_size() if is_distributed() else 1


def rank() -> int:
    """This process's number, 0 without a process group."""
    return dist.get_rank() if is_distributed() else 0


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum of ``tensor`` (any shape, equal on all ranks) over the ranks, without a graph.

    Example:
        >>> all_reduce_sum(torch.tensor([1, 2]))
        tensor([1, 2])
    """
    if not is_distributed():
        return tensor.detach()
    total = tensor.detach().contiguous().clone()
    dist.all_reduce(total)
    return total


def all_reduce_mean(tensor: Tensor) -> Tensor:
    """Mean of a floating ``tensor`` (any shape, equal on all ranks) over the ranks, without a graph."""
    return all_reduce_sum(tensor) / world_size() if is_distributed() else tensor.detach()


def differentiable_mean(tensor: Tensor) -> Tensor:
    """Mean of ``tensor`` over the ranks; its gradient goes to the local tensor as it came.

    Where every rank computes the same loss from this mean and the gradients of parameters are averaged over ranks, as
    DDP does, the result is the exact gradient of that loss.
    """
    if not is_distributed():
        return tensor
    return tensor + (all_reduce_mean(tensor) - tensor.detach())


def broadcast(tensor: Tensor, src: int = 0) -> Tensor:
    """The ``tensor`` (any shape, equal on all ranks) of rank ``src``, without a graph."""
    if not is_distributed():
        return tensor.detach()
    value = tensor.detach().contiguous().clone()
    dist.broadcast(value, src)
    return value


def all_gather(tensor: Tensor) -> Tensor:
    """The ``tensor`` (n, ...), equal in shape on all ranks, of every rank in order, with shape (ranks n, ...).

    Without a graph.
    """
    if not is_distributed():
        return tensor.detach()
    mine = tensor.detach().contiguous()
    every = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(every, mine)
    return torch.cat(every)
