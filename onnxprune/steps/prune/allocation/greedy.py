"""One unit after the other, always the one of least damage per resource that it saves right now."""

from __future__ import annotations

from onnxprune.steps.prune.allocation._greedy import cheapest_first
from onnxprune.steps.prune.allocation.base import AllocationProblem, Family, allocation, take_in_order


@allocation("greedy")
def greedy(problem: AllocationProblem) -> Family:
    """The share t of all units, in the order of damage per saved MAC (or whatever the target is about)."""
    already = [group for group, count in problem.already.items() for _ in range(count)]
    order = [group for group, _ in cheapest_first(problem)]
    return take_in_order([*already, *order], sum(group.units for group in problem.groups))
