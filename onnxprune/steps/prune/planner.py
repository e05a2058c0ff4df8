"""From scores and constraints to a family of cuts: how many units each group loses at which strength."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from onnxprune.analysis import cost
from onnxprune.analysis.groups import Analysis, Group
from onnxprune.analysis.select import select_groups
from onnxprune.dims import Mask
from onnxprune.steps.prune.allocation.base import (
    AllocationProblem,
    Curve,
    Family,
    Lost,
    Scores,
    allocations,
    at_least,
    share,
)
from onnxprune.steps.prune.allocation.rounding import Multiple, next_larger, round_up
from onnxprune.steps.prune.options import PruneOptions
from onnxprune.steps.prune.tilt import tilted, tilts_of

NOTHING: Mapping[str, Curve] = MappingProxyType({})
NO_MASKS: Mapping[str, Mask] = MappingProxyType({})
SIZES_AS_THEY_COME: Mapping[str, Multiple] = MappingProxyType({})
NO_MULTIPLES: Mapping[str, int] = MappingProxyType({})
# Strengths are distinguished to a millionth.
_HALVINGS = 20


@dataclass(frozen=True)
class Planner:
    """A problem, what a recipe has decided already, and the family of cuts of one strategy.

    Attributes:
        problem: what the strategy decides on.
        groups: all groups of the request, those included that `decided` speaks of.
        decided: units removed from the groups that have a ratio of their own.
        family: of the strategy.
        multiples: per group id, what its axes are multiples of where they can be; others come as they are.
        already: units that earlier steps have removed, per group id.
        asked: the multiples were asked for.
        held: in words, which wishes of the request keep units.
    """

    problem: AllocationProblem
    groups: tuple[Group, ...]
    decided: Mapping[str, int]
    family: Family
    multiples: Mapping[str, Multiple]
    already: Mapping[str, int]
    asked: bool = False
    held: tuple[str, ...] = ()

    def lost(self, t: float) -> Lost:
        """How many units every group loses at strength t."""
        lost = {**self.already, **self.decided, **self.family(t)}
        return at_least(self.already, round_up(self.groups, lost, self.multiples)) if self.multiples else lost

    def of_ratio(self, ratio: float) -> tuple[float, Lost]:
        """The strength and the cut that removes the number of units nearest to what the ratio asks for.

        Aligned groups keep a few units more, so that the cut has to be a little stronger to remove as many in all.
        """
        if self.asked or not self.multiples:
            return ratio, self.lost(ratio)
        wanted = sum(replace(self, multiples=SIZES_AS_THEY_COME).lost(ratio).values())
        low, high = ratio, 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if sum(self.lost(middle).values()) < wanted else (low, middle)
        return min(((t, self.lost(t)) for t in (low, high)), key=lambda cut: abs(sum(cut[1].values()) - wanted))

    def given_back(self, group: str, lost: Lost) -> int:
        """How many units a group loses once it gets back as few as alignment allows; never less than `already`."""
        (own,) = (each for each in self.problem.groups if each.id == group)
        return max(next_larger(own, self.groups, lost, self.multiples.get(group)), self.already[group])

    def aligned(self, lost: Mapping[str, int]) -> tuple[str, ...]:
        """Which sizes were chosen because kernels like them, in words; empty where that was asked for."""
        cut = {each.number for name, each in self.multiples.items() if lost[name] > self.already[name]}
        if self.asked or not cut:
            return ()
        return (f"widths are multiples of {max(cut)}, small ones of 4, which run faster; --round-to 1 turns that off",)

    def undecided(self, t: float, scope: str) -> tuple[str, ...]:
        """Why what was measured decides nothing at strength t, in words; empty where it does."""
        curves = [self.problem.damages[group.id] for group in self.problem.groups if group.id in self.problem.damages]
        if not curves or self.lost(t) != replace(self, family=self.problem.uniform).lost(t):
            return ()
        if len(self.problem.groups) == 1:
            why = "there is one group, so nothing to share out"
        elif not any(any(curve.values) for curve in curves):
            why = "no cut of a single group changed anything that was measured"
        else:
            why = "by the measured curves no other cut as small does less damage"
        return (f"scope {scope} comes to what scope uniform does: {why}",)


def planner(
    analysis: Analysis,
    groups: Sequence[Group],
    scores: Mapping[str, Scores],
    options: PruneOptions,
    *,
    comparable: bool = False,
    measured: tuple[Mapping[str, Curve], Mapping[str, Curve]] = (NOTHING, NOTHING),
    removed: Mapping[str, Mask] = NO_MASKS,
    liked: Mapping[str, int] = NO_MULTIPLES,
    limits: Mapping[str, int] = MappingProxyType({}),
    trials: Mapping[str, tuple[int, float]] = MappingProxyType({}),
) -> Planner:
    """Set up an allocation.

    Args:
        analysis: the model.
        groups: those that may lose units.
        scores: per group id, float64 [units].
        options: strategy, resource and limits.
        comparable: scores of different groups are on one scale.
        measured: damages and times per group id, for strategies that need them; see `AllocationProblem`.
        removed: per group id, the units that earlier steps have removed: bool, shape [units].
        liked: per group id, what kernels like its axes to be multiples of, for groups whose count no option decides.
        limits: the most units that groups may lose, by id, where the options would allow more; those that earlier steps
            have removed stay removed.
        trials: of groups, see `AllocationProblem`.

    Raises UsageError for a ratio whose pattern matches no group.
    """
    already = {group.id: int(removed[group.id].sum()) if removed else 0 for group in groups}
    wanted = _decided(analysis, groups, options)
    decided = {name: max(count, already[name]) for name, count in wanted.items()}
    free = [group for group in groups if group.id not in decided]
    problem = AllocationProblem(
        analysis,
        free,
        {group.id: scores[group.id] for group in free},
        {each.id: max(min(options.most(each), limits.get(each.id, each.units)), already[each.id]) for each in free},
        {group.atom: group.units - decided[group.id] for group in groups if group.id in decided},
        comparable,
        options.resource if options.resource != "macs" or cost.macs_of(analysis) else "parameters",
        *measured,
        {group.id: removed[group.id] for group in free} if removed else {},
        trials,
    )
    return Planner(
        problem,
        tuple(groups),
        decided,
        tilted(allocations[options.scope](problem), problem.most, tilts_of(analysis, groups, options)),
        _multiples(groups, options, liked, decided),
        already,
        options.round_to is not None,
        _held(analysis, groups, wanted, options),
    )


def _multiples(
    groups: Sequence[Group], options: PruneOptions, liked: Mapping[str, int], decided: Container[str]
) -> Mapping[str, Multiple]:
    """What the axes of each group are multiples of, for `Planner`."""
    if options.round_to is not None:
        return {group.id: Multiple(options.round_to) for group in groups if options.round_to > 1}
    return {name: Multiple(number, at_most=True) for name, number in liked.items() if name not in decided}


def _held(
    analysis: Analysis, groups: Sequence[Group], decided: Mapping[str, int], options: PruneOptions
) -> tuple[str, ...]:
    """Which wishes of the request keep units, for the message that a target cannot be met."""
    excluded = len(analysis.groups) - len(groups)
    wishes = {
        f"--only / --skip leave out {excluded} of {len(analysis.groups)} groups": excluded,
        f"--max-ratio {options.max_ratio:g}": options.max_ratio < 1,
        f"--min-units {options.min_units}": options.min_units > 1,
        f"--round-to {options.round_to}": (options.round_to or 1) > 1,
        f"{len(decided)} of {len(analysis.groups)} groups have ratios of their own": decided,
    }
    return tuple(said for said, holds in wishes.items() if holds)


def _decided(analysis: Analysis, groups: Sequence[Group], options: PruneOptions) -> dict[str, int]:
    """Units removed from the groups that a ratio of their own names."""
    decided: dict[str, int] = {}
    for pattern, ratio in options.ratios:
        for group in select_groups(analysis, [pattern], ()):
            if any(group is each for each in groups):
                decided[group.id] = min(share(ratio, group.units), options.most(group))
    return decided
