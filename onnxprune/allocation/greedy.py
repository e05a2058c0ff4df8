"""One unit after the other, always the one of least score per resource that it saves right now."""

from __future__ import annotations

import heapq

from onnxprune.allocation.base import Family, Problem, allocation, in_order

# A group of more units than this loses several at a time.
_STEPS = 128


@allocation("greedy")
def greedy(problem: Problem) -> Family:
    """The units in the order of score per saved MAC (or parameter), the costs taken anew after every removal.

    What a unit saves shrinks with its neighbours and never grows, so an outdated price is too low: the cheapest entry
    of the heap is priced again, and goes if it still is the cheapest (Minoux 1978, "Accelerated greedy algorithms").
    """
    kept = problem.kept({})
    heap: list[tuple[float, int]] = []
    steps = [max(1, group.units // _STEPS) for group in problem.groups]

    def price(index: int) -> float | None:
        group = problem.groups[index]
        lost = group.units - kept[group.atom]
        upto = min(lost + steps[index], problem.most[group.id])
        if upto <= lost:
            return None
        score = float(problem.importance[group.id][lost:upto].sum())
        return score / max(problem.saved(kept, group, group.units - upto), 1e-9)

    def offer(index: int) -> None:
        now = price(index)
        if now is not None:
            heapq.heappush(heap, (now, index))

    for index in range(len(problem.groups)):
        offer(index)
    order: list[str] = []
    while heap:
        _, index = heapq.heappop(heap)
        now = price(index)
        if heap and now is not None and (now, index) > heap[0]:
            heapq.heappush(heap, (now, index))
            continue
        group = problem.groups[index]
        count = min(steps[index], problem.most[group.id] - (group.units - kept[group.atom]))
        kept[group.atom] -= count
        order.extend([group.id] * count)
        offer(index)
    return in_order(order, sum(group.units for group in problem.groups))
