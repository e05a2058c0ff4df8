"""The default: a share of all units, taken where they do the least damage for what they save."""

from __future__ import annotations

from collections import Counter
from math import prod

import numpy as np

from onnxprune.steps.prune.allocation._greedy import cheapest_first
from onnxprune.steps.prune.allocation._nesting import axes
from onnxprune.steps.prune.allocation.base import AllocationProblem, Family, Lost, allocation


@allocation("auto")
def auto(problem: AllocationProblem) -> Family:
    """The share t of all units, to the nearest one, in the order of damage per size saved, or per what is aimed at.

    The damage counts a unit once for every layer that it is in (see `Problem.damage`): a residual stream, which all of
    its blocks read and write, loses less than what lies inside the blocks. Groups that are nested, like the channels of
    a grouped convolution, are counted by the axis that they make up: half of it is half of the channels.
    """
    order = [group for group, _ in cheapest_first(problem)]
    removed = _removed(problem, order)

    def lost(t: float) -> Lost:
        taken = int(np.abs(removed - t).argmin())  # of two that are as near, the first: it removes less
        return dict(Counter(problem.already) + Counter(order[:taken]))

    return lost


def _removed(problem: AllocationProblem, order: list[str]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The share of the units that is removed after so many entries of the order: float64 [1 + length of the order]."""
    sizes = {group.atom: group.units for group in problem.groups}
    kept = {group.atom: group.units - problem.already[group.id] for group in problem.groups}
    own = {group.id: group.atom for group in problem.groups}
    every = axes(problem.groups)
    on = {atom: [axis for axis in every if atom in axis] for atom in sizes}
    whole = sum(prod(sizes[atom] for atom in axis) for axis in every)
    there = sum(prod(kept[atom] for atom in axis) for axis in every)
    removed = [whole - there]
    for name in order:
        atom = own[name]
        less = sum(prod(kept[each] for each in axis if each is not atom) for axis in on[atom])
        kept[atom] -= 1
        removed.append(removed[-1] + less)
    return np.array(removed) / max(whole, 1)
