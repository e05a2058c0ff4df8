"""Least importance lost for the time that is saved, measured group by group in ONNX Runtime."""

from __future__ import annotations

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.steps.prune.allocation._knapsack import choose_levels, damage_of_scores
from onnxprune.steps.prune.allocation.base import AllocationProblem, Family, Lost, allocation

# Seconds are added up in these.
_TICK = 1e-9


@allocation("latency", needs=("seconds",))
def latency(problem: AllocationProblem) -> Family:
    """The share t of the time that the measured levels of all groups save together, at the least importance lost.

    Only levels that were measured are taken, so steps and alignment of the kernels are in the answer (Shen et al. 2022,
    "Structural Pruning via Latency-Saliency Knapsack", section 3.2). Raises UsageError where nothing was measured.
    """
    if not problem.seconds:
        raise UsageError("scope 'latency' has no measured times")
    levels = {group.id: list(problem.seconds[group.id].lost) for group in problem.groups}
    damages = list(damage_of_scores(problem, levels).values())
    savings = [np.asarray(problem.seconds[group].values) / _TICK for group in levels]
    most = sum(float(saving.max()) for saving in savings)

    def lost(t: float) -> Lost:
        chosen = choose_levels(damages, savings, t * most)
        picked = [int(np.argmax(saving)) for saving in savings] if chosen is None else chosen
        return {group: counts[level] for (group, counts), level in zip(levels.items(), picked, strict=True)}

    return lost
