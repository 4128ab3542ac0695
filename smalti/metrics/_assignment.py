"""The cheapest way to pair two sets: shortest augmenting paths (Jonker & Volgenant, doi:10.1007/BF02278710)."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def assignment(cost: Array) -> Array:
    """The column of each row in the cheapest one-to-one pairing, int64 with shape (n,).

    O(n^3), in whole rows: a second for n = 500. scipy has a faster one, which is not worth a dependency.

    Args:
        cost: with shape (n, n), finite.

    Example:
        >>> assignment(np.array([[1.0, 2.0], [0.0, 3.0]]))
        array([1, 0])
    """
    size = len(cost)
    row_price, column_price = np.zeros(size), np.zeros(size)
    row_of = np.full(size, -1)
    for start in range(size):
        reach, before, used = np.full(size, np.inf), np.full(size, -1), np.zeros(size, dtype=bool)
        row, last = start, -1
        while True:  # Dijkstra over reduced costs, until a free column is reached
            slack = cost[row] - row_price[row] - column_price
            nearer = ~used & (slack < reach)
            reach[nearer], before[nearer] = slack[nearer], last
            column = int(np.argmin(np.where(used, np.inf, reach)))
            step = reach[column]
            row_price[start] += step
            row_price[row_of[used]] += step
            column_price[used] -= step
            reach[~used] -= step
            used[column], last = True, column
            if row_of[column] < 0:
                break
            row = int(row_of[column])
        while column >= 0:  # turn the path over
            previous = int(before[column])
            row_of[column] = start if previous < 0 else row_of[previous]
            column = previous
    columns = np.empty(size, dtype=np.int64)
    columns[row_of] = np.arange(size)
    return columns
