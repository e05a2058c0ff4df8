"""All units in the order of least damage per resource saved, the costs taken anew after every removal.

Shared by the strategies that remove one unit after the other; they differ in what a strength means.
"""

from __future__ import annotations

import heapq

from onnxprune.steps.prune.allocation.base import AllocationProblem

# A group of more units than this loses several at a time.
_STEPS = 32


def cheapest_first(problem: AllocationProblem) -> list[tuple[str, float]]:
    """The group that loses a unit and what that saves, one entry per unit, until nothing may go any more.

    It starts from what is left after earlier steps.

    What a unit saves shrinks with its neighbours and never grows, and the damage of the next one of a group is never
    less: an outdated price is too low. So the cheapest entry of a heap is priced again, and goes if it still is the
    cheapest (Minoux 1978, "Accelerated greedy algorithms for maximizing submodular set functions").
    """
    kept = problem.kept(problem.already)
    steps = [max(1, group.units // _STEPS) for group in problem.groups]
    order: list[tuple[str, float]] = []

    def price(index: int) -> float:
        group = problem.groups[index]
        lost = group.units - kept[group.atom]
        after = min(lost + steps[index], problem.most[group.id])
        damage = float(problem.damage[group.id][after] - problem.damage[group.id][lost])
        return damage / max(problem.saved(kept, group, group.units - after), 1e-12)

    def may_lose(index: int) -> int:
        group = problem.groups[index]
        return min(steps[index], problem.most[group.id] - (group.units - kept[group.atom]))

    heap = [(price(index), index) for index in range(len(problem.groups)) if may_lose(index)]
    heapq.heapify(heap)
    while heap:
        _, index = heapq.heappop(heap)
        now = (price(index), index)
        if heap and now > heap[0]:
            heapq.heappush(heap, now)
            continue
        group, count = problem.groups[index], may_lose(index)
        saved = problem.saved(kept, group, kept[group.atom] - count)
        kept[group.atom] -= count
        order.extend([(group.id, saved / count)] * count)
        if may_lose(index):
            heapq.heappush(heap, (price(index), index))
    return order
