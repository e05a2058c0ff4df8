"""Least importance lost for what is saved, over all groups at once."""

from __future__ import annotations

from onnxprune.steps.prune.allocation._knapsack import as_small_as_uniform, damage_of_scores, levels_of
from onnxprune.steps.prune.allocation.base import AllocationProblem, Family, allocation


@allocation("knapsack", nested=False)
def knapsack(problem: AllocationProblem) -> Family:
    """As small as every group losing t, with the least importance removed (Shen et al. 2022, "HALP", section 3)."""
    levels = levels_of(problem)
    damages = damage_of_scores(problem, levels)
    return lambda t: as_small_as_uniform(problem, levels, damages, t)
