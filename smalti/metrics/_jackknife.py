"""How sure a number of a whole set of images is: the delete-a-group jackknife (Tukey, 1958; Kott, 2001).

Images are dealt into G groups by the order that they have by themselves; the number is taken G times, each time without
one group, of the real and the made images alike. Of such numbers t_1 ... t_G the number's variance is
(G - 1) / G sum (t_g - mean t)^2, and the interval reaches as many deviations to both sides as Student's t with G - 1
degrees of freedom says. A bootstrap would draw images twice, which lifts the bias of a Frechet distance far above its
deviation; here the bias is the same in all t_g and falls out.
"""

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

GROUPS = 20  # that an evaluation takes
LOW, HIGH = "_low", "_high"
# Quantiles 0.975 of Student's t with 1 ... 19 degrees of freedom, and of the normal distribution.
_T: tuple[float, ...] = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160)
_T += (2.145, 2.131, 2.120, 2.110, 2.101, 2.093)
_Z = 1.959964

Groups = Annotated[int, Field(ge=0, le=1000)]


def check_groups(groups: int) -> int:
    """The number, if it is 0 (no interval) or at least 2.

    Raises:
        ValueError: for another.
    """
    if groups == 1 or groups < 0:
        raise ValueError(f"groups={groups}: expected 0, for no interval, or at least 2")
    return groups


def left_out(count: int, groups: int, number: Callable[[Tensor], Tensor]) -> Tensor:
    """The number without each group, float64 with shape (G,), G at most ``count``; (0,) of fewer than 3 images.

    Args:
        count: of images; image i is of group i modulo G.
        groups: how many; 0: none.
        number: rows that are left, int64, to a scalar.
    """
    groups = min(groups, count)
    if groups < 2 or count < 3:
        return torch.zeros(0, dtype=torch.float64)
    rows = torch.arange(count)
    return torch.stack([number(rows[rows % groups != group]).double() for group in range(groups)])


def means_left_out(values: Tensor, groups: int) -> Tensor:
    """The mean of ``values`` (N,) without each group, float64 with shape (G,).

    Example:
        >>> means_left_out(torch.tensor([1.0, 2.0, 3.0, 6.0]), 2)
        tensor([4., 2.], dtype=torch.float64)
    """
    return left_out(len(values), groups, lambda rows: values[rows].double().mean())


def ends(
    name: str, value: Tensor, without: Tensor, least: float = -torch.inf, most: float = torch.inf
) -> dict[str, Tensor]:
    """``<name>_low`` and ``<name>_high``: where the number lies with 95 %; nothing if there are no groups.

    Args:
        name: of the number.
        value: of all images, a scalar.
        without: of the images without each group, with shape (G,).
        least: that it can be.
        most: that it can be.

    Example:
        >>> ends("x", torch.tensor(3.0), torch.tensor([4.0, 2.0]), least=0.0)
        {'x_low': tensor(0., dtype=torch.float64), 'x_high': tensor(15.7060, dtype=torch.float64)}
    """
    groups = len(without)
    if groups < 2:
        return {}
    deviation = ((groups - 1) / groups * (without - without.mean()).square().sum()).sqrt()
    reach = deviation * student(groups - 1)
    return {
        f"{name}{LOW}": (value.double() - reach).clamp(least, most),
        f"{name}{HIGH}": (value.double() + reach).clamp(least, most),
    }


def shares_of(
    names: Sequence[str], values: Sequence[Tensor], groups: int, most: float = torch.inf
) -> dict[str, Tensor]:
    """Name -> mean of what single images have, each (N,), and where it lies with 95 %; at least 0, at most ``most``."""
    found: dict[str, Tensor] = {}
    for name, of in zip(names, values, strict=True):
        found[name] = of.mean()
        found |= ends(name, found[name], means_left_out(of, groups), least=0.0, most=most)
    return found


def student(freedom: int) -> float:
    """The quantile 0.975 of Student's t, to 3 digits after the point (Cornish & Fisher beyond the table).

    Example:
        >>> student(1), round(student(30), 3), round(student(999), 3)
        (12.706, 2.042, 1.962)
    """
    if freedom <= len(_T):
        return _T[freedom - 1]
    return _Z + (_Z**3 + _Z) / (4 * freedom) + (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / (96 * freedom**2)
