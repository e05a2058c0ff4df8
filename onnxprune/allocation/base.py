"""What an allocation is: scores and a ratio in, the number of units that each group loses out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from onnxprune.registry import Registry

Scores = npt.NDArray[np.float64]
Allocation = Callable[[Mapping[str, Scores], float], dict[str, int]]

allocations: Registry[Allocation] = Registry("scope", "onnxprune.allocation")
allocation = allocations.register

# A ratio of 0.3 of 10 units is 3, although 0.3 * 10 is less than 3 in floating point.
_EPSILON = 1e-9


def share(ratio: float, units: int) -> int:
    """How many of `units` a ratio removes: rounded down, and never the last one."""
    return min(int(units * ratio + _EPSILON), units - 1)


def weakest(scores: Scores, count: int) -> npt.NDArray[np.bool_]:
    """The keep-mask that drops the `count` lowest scores; of equal ones the first go."""
    mask = np.ones(len(scores), dtype=np.bool_)
    mask[np.argsort(scores, kind="stable")[:count]] = False
    return mask
