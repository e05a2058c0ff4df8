"""One ranking per structure: units compete only with units that sit in the same kind of place.

Fang et al. 2024, "Isomorphic Pruning for Vision Models", section 3: scores of unlike sub-structures are not comparable,
those of isomorphic ones are. Here two groups are isomorphic when the same operators hold them in the same axes of as
many weights; sizes do not matter.
"""

from __future__ import annotations

from collections import Counter

from onnxprune.analysis.groups import Group
from onnxprune.steps.prune.allocation.base import AllocationProblem, Family, Lost, allocation, take_in_order

Structure = frozenset[tuple[tuple[str, int], int]]


@allocation("isomorphic")
def isomorphic(problem: AllocationProblem) -> Family:
    """The weakest t of the units of each set of isomorphic groups, by score over the group's mean."""
    alike: dict[tuple[str, Structure], list[Group]] = {}
    for group in problem.groups:
        alike.setdefault((group.kind, _structure(problem, group)), []).append(group)
    families = [_ranking(problem, groups) for groups in alike.values()]

    def lost(t: float) -> Lost:
        return {group: count for family in families for group, count in family(t).items()}

    return lost


def _structure(problem: AllocationProblem, group: Group) -> Structure:
    """How often which operator holds the units in which axis of a weight."""
    initializers = problem.analysis.model.graph.initializers
    places = Counter(
        (node.op_type, place.axis) for place in group.occurrences for node, _ in initializers[place.tensor].uses()
    )
    return frozenset(places.items())


def _ranking(problem: AllocationProblem, groups: list[Group]) -> Family:
    ranked: list[tuple[float, str]] = []
    for group in groups:
        ranked.extend((score, group.id) for score in problem.weakest_first(group))
    ranked.sort(key=lambda item: item[0])
    already = [group.id for group in groups for _ in range(problem.already[group.id])]
    return take_in_order([*already, *(group for _, group in ranked)], sum(group.units for group in groups))
