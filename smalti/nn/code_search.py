"""The nearest code of each token, in chunks of rows or by a Triton kernel: nothing of size N x K is ever held."""

from collections.abc import Iterator

import torch
from torch import Tensor

from smalti.nn import _triton_ready
from smalti.nn.exporting import is_exporting
from smalti.nn.precision import at_least_float32, full_precision

# Scores per chunk: 0.5 MiB of float32 stays in a core's cache; a GPU wants larger ones.
CPU_BUDGET = 2**17
GPU_BUDGET = 2**25
# One reduction over K finds the position of a maximum nine times slower than its value, so positions are sought among
# the maxima of blocks first, then within the winning block.
BLOCK = 128
FEWEST_ROWS = 16


def row_chunks(rows: int, width: int, device: torch.device, chunk: int | None = None) -> Iterator[slice]:
    """Slices that cover ``rows``, each of at most ``chunk`` rows; None: as many as suit ``width`` and the device.

    Raises:
        ValueError: if ``chunk`` is not positive.

    Example:
        >>> list(row_chunks(5, 4, torch.device("cpu"), chunk=2))
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk={chunk}: expected a positive number of rows")
    budget = CPU_BUDGET if device.type == "cpu" else GPU_BUDGET
    size = chunk or max(FEWEST_ROWS, budget // max(width, 1))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


@torch.no_grad()
@full_precision()
def nearest_code(z: Tensor, codebook: Tensor, *, chunk: int | None = None) -> Tensor:
    """Index of the row of ``codebook`` at the smallest Euclidean distance from each row of ``z``.

    argmin_k |z - e_k|^2 = argmax_k z.e_k - |e_k|^2 / 2, in at least float32 whatever autocast says; the lowest index
    wins ties. A program made by ``torch.export`` compares all rows at a time.

    Args:
        z: tokens with shape (N, d).
        codebook: codes with shape (K, d).
        chunk: rows of ``z`` that are compared at a time; None chooses by K and the device, and a Triton kernel needs
            none (CUDA, float32).

    Returns:
        int64 with shape (N,).

    Example:
        >>> nearest_code(torch.tensor([[0.9], [-3.0]]), torch.tensor([[0.0], [1.0], [1.0]]))
        tensor([1, 0])
    """
    z, codebook = at_least_float32(z), at_least_float32(codebook)
    return _largest(z, codebook, -0.5 * codebook.square().sum(dim=1), chunk)


@torch.no_grad()
@full_precision()
def sampled_code(z: Tensor, codebook: Tensor, temperature: float, *, chunk: int | None = None) -> Tensor:
    """A row of ``codebook`` for each row of ``z``, drawn with probability softmax_k(-|z - e_k|^2 / temperature).

    By the largest of logits with Gumbel noise (Lee et al., arXiv:2203.01941, for the use), from torch's generator of
    the device.

    Args:
        z: tokens with shape (N, d).
        codebook: codes with shape (K, d).
        temperature: positive, in units of squared distance.
        chunk: rows of ``z`` that are compared at a time; None chooses by K and the device.

    Returns:
        int64 with shape (N,).

    Example:
        >>> sampled_code(torch.tensor([[0.9], [-3.0]]), torch.tensor([[0.0], [1.0]]), 1e-3)
        tensor([1, 0])
    """
    z, codebook = at_least_float32(z), at_least_float32(codebook)
    offset = -codebook.square().sum(dim=1) / temperature
    indices = torch.empty(z.shape[0], dtype=torch.int64, device=z.device)
    for rows in row_chunks(z.shape[0], codebook.shape[0], z.device, chunk):
        scores = torch.addmm(offset, z[rows], codebook.T, alpha=2.0 / temperature)
        noise = torch.empty_like(scores).exponential_().log_().neg_()
        indices[rows] = blocked_max(scores.add_(noise))[1]
    return indices


@torch.no_grad()
@full_precision()
def largest_product(z: Tensor, rows: Tensor, offset: Tensor | None = None, *, chunk: int | None = None) -> Tensor:
    """Index of the row with the largest z.r + offset for each z, the lowest of equals.

    In at least float32 whatever autocast says. A program made by ``torch.export`` compares all of z at a time.

    Args:
        z: with shape (N, d).
        rows: r with shape (K, d).
        offset: one of each row, with shape (K,); None: 0.
        chunk: as for :func:`nearest_code`.

    Returns:
        int64 with shape (N,).

    Example:
        >>> largest_product(torch.tensor([[1.0], [-1.0]]), torch.tensor([[1.0], [3.0], [-2.0]]))
        tensor([1, 2])
    """
    z, rows = at_least_float32(z), at_least_float32(rows)
    return _largest(z, rows, rows.new_zeros(len(rows)) if offset is None else offset, chunk)


def blocked_max(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of each row of ``scores`` with shape (n, K), and its first position, both (n,).

    Example:
        >>> blocked_max(torch.tensor([[1.0, 3.0, 3.0]]))
        (tensor([3.]), tensor([1]))
    """
    codes = scores.shape[1]
    whole = codes - codes % BLOCK
    if whole <= BLOCK:
        return _pair(scores)
    blocks = scores[:, :whole].view(len(scores), -1, BLOCK)
    largest, block = _pair(blocks.amax(dim=2))
    within = blocks.gather(1, block[:, None, None].expand(-1, 1, BLOCK)).squeeze(1).argmax(dim=1)
    position = block * BLOCK + within
    if whole == codes:
        return largest, position
    last, behind = _pair(scores[:, whole:])
    larger = last > largest
    return torch.where(larger, last, largest), torch.where(larger, behind + whole, position)


def _pair(scores: Tensor) -> tuple[Tensor, Tensor]:
    largest, position = scores.max(dim=1)
    return largest, position


def _largest(z: Tensor, rows: Tensor, offset: Tensor, chunk: int | None) -> Tensor:
    # No decorators here: torch.export does not nest them.
    if is_exporting():  # a loop over rows would fix their number in the exported program
        return torch.addmm(offset, z, rows.T).argmax(dim=1)
    if (found := _by_kernel(z, rows, offset)) is not None:
        return found
    indices = torch.empty(z.shape[0], dtype=torch.int64, device=z.device)
    for part in row_chunks(z.shape[0], rows.shape[0], z.device, chunk):
        indices[part] = blocked_max(torch.addmm(offset, z[part], rows.T))[1]
    return indices


def _by_kernel(z: Tensor, rows: Tensor, offset: Tensor) -> Tensor | None:
    """The same by a Triton kernel; None where there is none, or if it fails."""
    device, channels = z.device, z.shape[1]
    if not _triton_ready.is_gpu(device) or not len(z) or torch.compiler.is_compiling():
        return None
    if {z.dtype, rows.dtype, offset.dtype} != {torch.float32}:
        return None
    if not _triton_ready.runs("code search", device, z.dtype, channels):
        return None

    def call() -> Tensor:
        from smalti.nn import _triton_launch

        return _triton_launch.largest(z, rows, offset)

    return _triton_ready.attempt("code search", device, channels, call)
