"""Least damage for what is saved, with the damage of each group measured on calibration data."""

from __future__ import annotations

from onnxprune.errors import UsageError
from onnxprune.steps.prune.allocation._knapsack import as_small_as_uniform, levels_of, on_levels
from onnxprune.steps.prune.allocation.base import AllocationProblem, Family, allocation


@allocation("sensitivity", needs=("damages",))
def sensitivity(problem: AllocationProblem) -> Family:
    """As small as every group losing t, with the least measured damage, taken to add up over the groups.

    Raises UsageError where nothing was measured.
    """
    if not problem.damages:
        raise UsageError("scope 'sensitivity' needs calibration data to measure the groups on: give --data")
    levels = levels_of(problem)
    damages = on_levels(problem.damages, levels)
    return lambda t: as_small_as_uniform(problem, levels, damages, t)
