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
from onnxprune.steps.prune.allocation.rounding import round_up
from onnxprune.steps.prune.options import PruneOptions
from onnxprune.steps.prune.tilt import tilted, tilts_of

NOTHING: Mapping[str, Curve] = MappingProxyType({})
NO_MASKS: Mapping[str, Mask] = MappingProxyType({})


@dataclass(frozen=True)
class Planner:
    """A problem, what a recipe has decided already, and the family of cuts of one strategy.

    Attributes:
        problem: what the strategy decides on.
        groups: all groups of the request, those included that `decided` speaks of.
        decided: units lost by the groups that have a ratio of their own.
        family: of the strategy.
        round_to: axis sizes come out as multiples of this where they can.
        already: units that earlier steps have removed, per group id.
        held: in words, which wishes of the request keep units.
    """

    problem: AllocationProblem
    groups: tuple[Group, ...]
    decided: Mapping[str, int]
    family: Family
    round_to: int
    already: Mapping[str, int]
    held: tuple[str, ...] = ()

    def lost(self, t: float) -> Lost:
        """How many units every group loses at strength t."""
        lost = {**self.already, **self.decided, **self.family(t)}
        return at_least(self.already, round_up(list(self.groups), lost, self.round_to)) if self.round_to > 1 else lost

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
    damages: Mapping[str, Curve] = NOTHING,
    seconds: Mapping[str, Curve] = NOTHING,
    removed: Mapping[str, Mask] = NO_MASKS,
    closed: Container[str] = (),
) -> Planner:
    """Set up an allocation.

    Args:
        analysis: the model.
        groups: those that may lose units.
        scores: per group id, float64 [units].
        options: strategy, resource and limits.
        comparable: scores of different groups are on one scale.
        damages: measured damage per group id, for strategies that need it; see `Problem`.
        seconds: measured times likewise.
        removed: per group id, the units that earlier steps have removed: bool, shape [units].
        closed: ids of groups that cannot lose more than earlier steps have removed.

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
        {group.id: max(0 if group.id in closed else options.most(group), already[group.id]) for group in free},
        {group.atom: group.units - decided[group.id] for group in groups if group.id in decided},
        comparable,
        options.resource if options.resource != "macs" or cost.cost_of(analysis).macs else "parameters",
        damages,
        seconds,
        {group.id: removed[group.id] for group in free} if removed else {},
    )
    return Planner(
        problem,
        tuple(groups),
        decided,
        tilted(allocations[options.scope](problem), problem.most, tilts_of(analysis, groups, options)),
        options.round_to,
        already,
        _held(analysis, groups, wanted, options),
    )


def _held(
    analysis: Analysis, groups: Sequence[Group], decided: Mapping[str, int], options: PruneOptions
) -> tuple[str, ...]:
    """Which wishes of the request keep units, for the message that a target cannot be met."""
    excluded = len(analysis.groups) - len(groups)
    wishes = {
        f"--only / --skip leave out {excluded} of {len(analysis.groups)} groups": excluded,
        f"--max-ratio {options.max_ratio:g}": options.max_ratio < 1,
        f"--min-units {options.min_units}": options.min_units > 1,
        f"--round-to {options.round_to}": options.round_to > 1,
        f"{len(decided)} of {len(analysis.groups)} groups have ratios of their own": decided,
    }
    return tuple(said for said, holds in wishes.items() if holds)


def _decided(analysis: Analysis, groups: Sequence[Group], options: PruneOptions) -> dict[str, int]:
    """Units lost by the groups that a ratio of their own names."""
    decided: dict[str, int] = {}
    for pattern, ratio in options.ratios:
        for group in select_groups(analysis, [pattern], ()):
            if any(group is each for each in groups):
                decided[group.id] = min(share(ratio, group.units), options.most(group))
    return decided
