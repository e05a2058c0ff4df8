"""Every group loses the same share."""

from __future__ import annotations

from onnxprune.allocation.base import Family, Lost, Problem, allocation, share


@allocation("uniform")
def uniform(problem: Problem) -> Family:
    """The share t of the units of each group, rounded down."""

    def lost(t: float) -> Lost:
        return {group.id: min(share(t, group.units), problem.most[group.id]) for group in problem.groups}

    return lost
