"""From scores and constraints to a family of cuts: how many units each group loses at which strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from onnxprune.analysis import cost
from onnxprune.analysis.groups import Analysis, Group
from onnxprune.analysis.select import select
from onnxprune.errors import UsageError
from onnxprune.steps.prune.allocation.base import (
    Curve,
    Family,
    Lost,
    Problem,
    Scores,
    allocations,
    at_least,
    gone_units,
    share,
)
from onnxprune.steps.prune.allocation.rounding import round_up

NOTHING: Mapping[str, Curve] = MappingProxyType({})


@dataclass(frozen=True)
class Constraints:
    """What an allocation has to keep to.

    Attributes:
        round_to: axis sizes come out as multiples of this where they can.
        max_ratio: no group loses more than this share of its units.
        min_units: no group is left with fewer units than this, unless it has fewer.
        ratios: (kind or pattern, ratio) pairs; the groups that one names lose just that, by the last one that does.
    """

    round_to: int = 1
    max_ratio: float = 1.0
    min_units: int = 1
    ratios: tuple[tuple[str, float], ...] = ()

    def check(self) -> None:
        """Raises UsageError for a value that makes no sense."""
        if self.round_to < 1:
            raise UsageError(f"round-to {self.round_to} makes no sense: give a multiple for axis sizes, like 8")
        if not 0 <= self.max_ratio <= 1:
            raise UsageError(f"max-ratio {self.max_ratio:g} is outside [0, 1]: it is a share of the units, like 0.8")
        if self.min_units < 1:
            raise UsageError(f"min-units {self.min_units} makes no sense: give a number of units to keep, like 4")
        for pattern, ratio in self.ratios:
            if not 0 <= ratio < 1:
                raise UsageError(f"ratio {ratio:g} for '{pattern}' is outside [0, 1): give a share of its units")

    def most(self, group: Group) -> int:
        """The most units that a group may lose."""
        return max(0, min(share(self.max_ratio, group.units), group.units - self.min_units))


NO_CONSTRAINTS = Constraints()


@dataclass(frozen=True)
class Planner:
    """A problem, what a recipe has decided already, and the family of cuts of one strategy.

    Attributes:
        problem: what the strategy decides on.
        groups: all groups of the request, those included that `decided` speaks of.
        decided: units lost by the groups that have a ratio of their own.
        family: of the strategy.
        round_to: axis sizes come out as multiples of this where they can.
        gone: units that each group has lost in earlier steps.
        held: in words, which wishes of the request keep units.
    """

    problem: Problem
    groups: tuple[Group, ...]
    decided: Mapping[str, int]
    family: Family
    round_to: int
    gone: Mapping[str, int]
    held: tuple[str, ...] = ()

    def lost(self, t: float) -> Lost:
        """How many units every group loses at strength t."""
        lost = {**self.gone, **self.decided, **self.family(t)}
        return at_least(self.gone, round_up(list(self.groups), lost, self.round_to)) if self.round_to > 1 else lost


def planner(
    analysis: Analysis,
    groups: Sequence[Group],
    scores: Mapping[str, Scores],
    scope: str,
    constraints: Constraints = NO_CONSTRAINTS,
    *,
    comparable: bool = False,
    resource: str = "size",
    damages: Mapping[str, Curve] = NOTHING,
    seconds: Mapping[str, Curve] = NOTHING,
) -> Planner:
    """Set up an allocation.

    Args:
        analysis: the model.
        groups: those that may lose units.
        scores: per group id, float64 [units]; -inf for units that have gone in earlier steps.
        scope: name of the strategy.
        constraints: what it has to keep to.
        comparable: scores of different groups are on one scale.
        resource: what is to be saved, one of `allocation.base.RESOURCES`.
        damages: measured damage per group id, for strategies that need it; see `Problem`.
        seconds: measured times likewise.

    Raises UsageError for an unknown strategy, and for a ratio whose pattern matches no group.
    """
    gone = {group.id: gone_units(scores[group.id]) for group in groups}
    wanted = _decided(analysis, groups, constraints)
    decided = {group: max(count, gone[group]) for group, count in wanted.items()}
    free = [group for group in groups if group.id not in decided]
    problem = Problem(
        analysis,
        free,
        {group.id: scores[group.id] for group in free},
        {group.id: max(constraints.most(group), gone[group.id]) for group in free},
        {group.atom: group.units - decided[group.id] for group in groups if group.id in decided},
        comparable,
        resource if resource != "macs" or cost.measure(analysis).macs else "parameters",
        damages,
        seconds,
    )
    return Planner(
        problem,
        tuple(groups),
        decided,
        allocations[scope](problem),
        constraints.round_to,
        gone,
        _held(analysis, groups, decided, constraints),
    )


def _held(
    analysis: Analysis, groups: Sequence[Group], decided: Mapping[str, int], constraints: Constraints
) -> tuple[str, ...]:
    """Which wishes of the request keep units, for the message that a target cannot be met."""
    excluded = len(analysis.groups) - len(groups)
    wishes = {
        f"--only / --skip leave out {excluded} of {len(analysis.groups)} groups": excluded,
        f"--max-ratio {constraints.max_ratio:g}": constraints.max_ratio < 1,
        f"--min-units {constraints.min_units}": constraints.min_units > 1,
        f"--round-to {constraints.round_to}": constraints.round_to > 1,
        f"{len(decided)} of {len(analysis.groups)} groups have ratios of their own": decided,
    }
    return tuple(said for said, holds in wishes.items() if holds)


def _decided(analysis: Analysis, groups: Sequence[Group], constraints: Constraints) -> dict[str, int]:
    """Units lost by the groups that a ratio of their own names."""
    decided: dict[str, int] = {}
    for pattern, ratio in constraints.ratios:
        for group in select(analysis, [pattern], ()):
            if any(group is each for each in groups):
                decided[group.id] = min(share(ratio, group.units), constraints.most(group))
    return decided
