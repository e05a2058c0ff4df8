"""The default: as small as with every group losing the same share, with less damage."""

from __future__ import annotations

from collections import Counter

import numpy as np

from onnxprune.steps.prune.allocation._greedy import cheapest_first
from onnxprune.steps.prune.allocation.base import AllocationProblem, Family, Lost, allocation


@allocation("auto")
def auto(problem: AllocationProblem) -> Family:
    """Units in the order of damage per size saved, until as little is left as with the share t of every group gone.

    The damage counts a unit once for every layer that it is in (see `Problem.damage`): a residual stream, which all of
    its blocks read and write, loses less than what lies inside the blocks.
    """
    order = cheapest_first(problem)
    left = problem.amount(problem.already) - np.cumsum([0.0, *(saved for _, saved in order)])

    def lost(t: float) -> Lost:
        enough = np.flatnonzero(left <= problem.amount(problem.uniform(t)) * (1 + 1e-9))
        taken = order[: enough[0] if len(enough) else len(order)]
        return dict(Counter(problem.already) + Counter(group for group, _ in taken))

    return lost
