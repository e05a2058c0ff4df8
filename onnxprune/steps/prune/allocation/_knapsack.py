"""Choose one level per group so that enough is saved at the least damage: the multiple-choice knapsack problem.

Shared by the strategies that trade one table against another; they differ in where damage and saving come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from onnxprune.dims import Atom
from onnxprune.steps.prune.allocation.base import AllocationProblem, Curve, Lost, at_least

Table = npt.NDArray[np.float64]

# Levels per group, and steps of what is saved, at most.
_LEVELS = 17
_STEPS = 400
# How often the savings are taken anew around the last answer; they settle after two or three.
_ROUNDS = 6


def levels_of(problem: AllocationProblem) -> dict[str, list[int]]:
    """Per group, numbers of units to lose, from what was removed earlier to the most that may go, evenly spaced."""
    return {
        group.id: sorted(
            {round(count) for count in np.linspace(problem.already[group.id], problem.most[group.id], _LEVELS)}
        )
        for group in problem.groups
    }


def damage_of_scores(problem: AllocationProblem, levels: Mapping[str, Sequence[int]]) -> dict[str, Table]:
    """The damage by the scores at each level."""
    return {group: problem.damage[group][list(counts)] for group, counts in levels.items()}


def on_levels(curves: Mapping[str, Curve], levels: Mapping[str, Sequence[int]]) -> dict[str, Table]:
    """Measured curves at each level, on straight lines between what was measured."""
    return {group: np.interp(counts, curves[group].lost, curves[group].values) for group, counts in levels.items()}


def choose_levels(damages: Sequence[Table], savings: Sequence[Table], required: float) -> list[int] | None:
    """Per group the level of least damage in all, such that the savings add up to `required` or more.

    Dynamic programming over savings in `_STEPS` steps, rounded down, so that what is required really is saved; exact
    where all savings are multiples of a step (Dudzinski and Walukiewicz 1987, "Exact methods for the knapsack problem
    and its generalizations", section 5). None where there is no such choice.
    """
    whole = required <= _STEPS and all(bool((saving == np.round(saving)).all()) for saving in savings)
    step = 1.0 if whole or required <= 0 else required / _STEPS
    need = int(np.ceil(required / step - 1e-9)) if required > 0 else 0
    best = np.full(need + 1, np.inf)  # by steps saved, `need` representing that or more
    best[0] = 0.0
    choices = []
    for damage, saving in zip(damages, savings, strict=True):
        gains = np.clip(np.floor(saving / step + 1e-9), 0, need).astype(np.int64)
        sources = np.arange(need + 1) - gains[:, None]  # of each level, where each position comes from
        costs = np.where(sources >= 0, best[sources], np.inf)
        for level, gain in enumerate(gains):  # the last position is also reached from all that would overshoot
            sources[level, need] = need - gain + int(np.argmin(best[need - gain :]))
            costs[level, need] = best[sources[level, need]]
        chosen = np.argmin(costs + damage[:, None], axis=0)
        everywhere = np.arange(need + 1)
        choices.append((chosen, sources[chosen, everywhere]))
        best = costs[chosen, everywhere] + damage[chosen]
    if not np.isfinite(best[need]):
        return None
    levels, position = [], need
    for chosen, came_from in reversed(choices):
        levels.append(int(chosen[position]))
        position = int(came_from[position])
    return levels[::-1]


def as_small_as_uniform(
    problem: AllocationProblem, levels: Mapping[str, Sequence[int]], damages: Mapping[str, Table], t: float
) -> Lost:
    """The cut of least damage that leaves no more of the resource than every group losing t would.

    What a level saves depends on the other groups. So savings are taken around the last answer, starting with the
    uniform cut, the knapsack is solved for what is to be saved from there, and its answer's exact cost corrects the
    next round. The uniform cut itself is the answer where nothing of less damage is small enough.
    """
    budget = problem.amount(problem.uniform(t))
    uniform = at_least(problem.already, problem.uniform(t))
    best, least = uniform, _damage(uniform, levels, damages)
    around, extra = uniform, 0.0
    for _ in range(_ROUNDS):
        kept = problem.kept(around)
        savings = [_savings(problem, kept, index, levels) for index in range(len(problem.groups))]
        now = sum(np.interp(around[g.id], levels[g.id], s) for g, s in zip(problem.groups, savings, strict=True))
        required = float(now) + problem.amount(around) - budget + extra
        chosen = choose_levels([damages[group.id] for group in problem.groups], savings, required)
        if chosen is None:
            break
        answer = {group.id: levels[group.id][level] for group, level in zip(problem.groups, chosen, strict=True)}
        over = problem.amount(answer) - budget
        harm = _damage(answer, levels, damages)
        if over <= 0 and harm < least:
            best, least = answer, harm
        if answer == around:
            break
        extra = max(0.0, extra + over) if over > 0 else extra / 2
        around = answer
    return best


def _savings(
    problem: AllocationProblem, kept: Mapping[Atom, int], index: int, levels: Mapping[str, Sequence[int]]
) -> Table:
    """The savings of each level of a group against the group being whole, the others as in `kept`."""
    group = problem.groups[index]
    whole = {**kept, group.atom: group.units}
    return np.array([problem.saved(whole, group, group.units - lost) for lost in levels[group.id]], np.float64)


def _damage(lost: Lost, levels: Mapping[str, Sequence[int]], damages: Mapping[str, Table]) -> float:
    return float(sum(np.interp(count, levels[group], damages[group]) for group, count in lost.items()))
