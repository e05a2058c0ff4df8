"""Every group loses the same share."""

from __future__ import annotations

from onnxprune.steps.prune.allocation.base import AllocationProblem, Family, allocation


@allocation("uniform")
def uniform(problem: AllocationProblem) -> Family:
    """The share t of the units of each group, rounded down."""
    return problem.uniform
