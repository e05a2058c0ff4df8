"""Which candidates no other beats: dominance, the front, and the hypervolume that a front covers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

Costs = Sequence[float]


def dominates(one: Costs, other: Costs) -> bool:
    """Is a candidate no worse in anything and better in something? Costs: less is better."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(a < b for a, b in zip(one, other, strict=True))


def dominated_by(costs: Costs, all_costs: Sequence[Costs]) -> int:
    """How many candidates dominate one."""
    return sum(dominates(each, costs) for each in all_costs)


def front(costs: Sequence[Costs]) -> list[int]:
    """Positions of the candidates that none dominates, by ascending first cost; of equal ones the first."""
    seen: set[tuple[float, ...]] = set()
    found = []
    for at in sorted(range(len(costs)), key=lambda at: (tuple(costs[at]), at)):
        if tuple(costs[at]) not in seen and not dominated_by(costs[at], costs):
            seen.add(tuple(costs[at]))
            found.append(at)
    return found


def hypervolume(costs: Sequence[Costs], reference: Costs) -> float:
    """Area of two costs that the candidates dominate, up to a reference that is worse than all that count."""
    area, height = 0.0, reference[1]
    inside = [costs[at] for at in front(costs) if all(a < b for a, b in zip(costs[at], reference, strict=True))]
    for first, second in inside:  # by ascending first cost, so by descending second
        area += (reference[0] - first) * (height - second)
        height = second
    return area


def is_feasible(trial: FrozenTrial) -> bool:
    """Does a trial keep to every limit?"""
    excess: dict[str, Any] = trial.user_attrs.get("excess", {})
    return all(value <= 0 for value in excess.values())
