"""The default: as small as with every group losing the same share, with less damage."""

from __future__ import annotations

from collections import Counter

import numpy as np

from onnxprune.allocation.base import Family, Lost, Problem, allocation, share
from onnxprune.allocation.order import cheapest_first


@allocation("auto")
def auto(problem: Problem) -> Family:
    """Units in the order of damage per size saved, until as little is left as with the share t of every group gone.

    The damage counts a unit once for every layer that it is in (see `Problem.damage`): a residual stream, which all of
    its blocks read and write, loses less than what lies inside the blocks.
    """
    order = cheapest_first(problem)
    left = problem.amount({}) - np.cumsum([0.0, *(saved for _, saved in order)])

    def lost(t: float) -> Lost:
        uniform = {group.id: min(share(t, group.units), problem.most[group.id]) for group in problem.groups}
        enough = np.flatnonzero(left <= problem.amount(uniform) * (1 + 1e-9))
        return dict(Counter(group for group, _ in order[: enough[0] if len(enough) else len(order)]))

    return lost
