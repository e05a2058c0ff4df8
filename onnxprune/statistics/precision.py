"""Products of features with each other: in which type they are kept and solved, and changes in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[Any]

# Products take the square of the number of features, solving its cube: of more than these both are done in float32.
# Ridges are far above what that rounds away, or are chosen on rows that were held out.
MANY_FEATURES = 1024
# Entries of a matrix that are changed together.
_BLOCK = 1 << 20


def products_type(features: int) -> np.dtype[Any]:
    """Float64 for few features, float32 for many."""
    return np.dtype(np.float32 if features > MANY_FEATURES else np.float64)


def add_outer(products: Matrix, means: Matrix, share: float) -> Matrix:
    """The same array plus so many times the outer products of means: changed in place, some rows at a time."""
    step = max(1, _BLOCK // max(1, products.shape[-1]))
    for start in range(0, products.shape[1], step):
        rows = slice(start, start + step)
        products[:, rows] += means[:, rows, None] * means[:, None, :] * share  # symmetric to the last bit
    return products
