"""Moments of features in a file, as they are published: an .npz with ``mu`` and ``sigma``."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from smalti.metrics._moments import Moments
from smalti.registry import UserError, shown

COUNT = "count"


def read_moments(path: str | Path, names: tuple[str, str] = ("mu", "sigma")) -> Moments:
    """The moments in a file; never runs code of it.

    Args:
        path: of an .npz file.
        names: what mean (d,) and covariance (d, d) are called there.

    Raises:
        UserError: if there is no such file, or it holds something else.
    """
    try:
        with Path(path).open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise UserError(f"cannot read moments from {path}: a single array, expected an .npz with {names}")
            absent = [name for name in names if name not in file.files]
            if absent:
                held = ", ".join(file.files) or "nothing"
                raise UserError(f"{path} has no {' and '.join(map(repr, absent))}: it holds {shown(held)}")
            mean, covariance = (np.asarray(file[name]) for name in names)
            count = int(file[COUNT]) if COUNT in file.files else None
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected an .npz with {names[0]!r} and {names[1]!r}") from None
    except Exception as error:  # numpy and zipfile raise many types for damaged files
        raise UserError(f"cannot read moments from {path}: {error}") from error
    _check(path, names, mean, covariance)
    mean_tensor, covariance_tensor = (torch.from_numpy(value.astype(np.float64)) for value in (mean, covariance))
    return Moments(count=count, mean=mean_tensor, covariance=covariance_tensor)


def write_moments(path: str | Path, moments: Moments) -> None:
    """Writes an .npz with ``mu``, ``sigma`` and, if known, ``count``, by which several such files can be merged."""
    values = {"mu": moments.mean.cpu().numpy(), "sigma": moments.covariance.cpu().numpy()}
    if moments.count is not None:
        values[COUNT] = np.asarray(moments.count)
    with Path(path).open("wb") as file:
        np.savez(file, **values)  # type: ignore[arg-type]


def _check(path: str | Path, names: tuple[str, str], mean: NDArray[Any], covariance: NDArray[Any]) -> None:
    wanted = f"{path}: {names[0]} {mean.shape} and {names[1]} {covariance.shape}: expected (d,) and (d, d)"
    if mean.ndim != 1 or covariance.shape != 2 * mean.shape or not len(mean):
        raise UserError(wanted)
    if mean.dtype.kind not in "fiu" or covariance.dtype.kind not in "fiu":
        raise UserError(f"{path}: {names[0]} is {mean.dtype}, {names[1]} {covariance.dtype}: expected numbers")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"{path}: some numbers are not finite")
    if np.abs(covariance - covariance.T).max() > 1e-6 * np.abs(covariance).max():
        raise UserError(f"{path}: {names[1]} is not symmetric, it is no covariance")
