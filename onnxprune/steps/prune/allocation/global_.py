"""One ranking over all groups: weak groups lose more than strong ones."""

from __future__ import annotations

from onnxprune.steps.prune.allocation.base import AllocationProblem, Family, allocation, take_in_order


@allocation("global")
def global_(problem: AllocationProblem) -> Family:
    """The weakest t of all units, after each group's scores are divided by their mean.

    The mean takes out that layers differ in the scale of their weights; what is left is how uneven a group is. Scores
    that are comparable between groups are taken as they are. The strongest unit of each group is not in the ranking, so
    no group can lose its last one.
    """
    ranked: list[tuple[float, str]] = []
    for group in problem.groups:
        ranked.extend((score, group.id) for score in problem.weakest_first(group))
    ranked.sort(key=lambda item: item[0])
    already = [group.id for group in problem.groups for _ in range(problem.already[group.id])]
    return take_in_order([*already, *(group for _, group in ranked)], sum(group.units for group in problem.groups))
