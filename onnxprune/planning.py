"""From scores and a request to how many units each group loses: constraints, allocation, rounding, targets."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from pathlib import Path
from types import MappingProxyType

from onnxprune import cost
from onnxprune.allocation.base import Curve, Family, Lost, Problem, Scores, allocations, share, weakest
from onnxprune.allocation.rounding import round_up
from onnxprune.coupling import Analysis, Group
from onnxprune.criteria.combination import resolve
from onnxprune.errors import TargetError, UsageError
from onnxprune.model import file_bytes, is_parameter
from onnxprune.plan import Plan, plan_from_masks, structure_of
from onnxprune.selection import select
from onnxprune.sensitivity import measure as measure_sensitivity
from onnxprune.targets import CHEAP, Outcome, Search, Target, parse
from onnxprune.trials import Trials


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


Progress = Callable[[str], None]
# Kernels work on blocks of channels; for other machines see: onnxprune benchmark --alignment, and --round-to.
_KERNELS_LIKE = 8
# Of a cut, for "latency" and "drop": what the original has, and what the cut has, by building it.
Costly = Callable[[Lost, str], tuple[float, float]]
NO_CONSTRAINTS = Constraints()
NOTHING: Mapping[str, Curve] = MappingProxyType({})


@dataclass(frozen=True)
class Request:
    """What to remove, as the command line says it.

    Attributes:
        criterion: name of the score, or a combination like "l2*0.7+random*0.3"; see `criteria`.
        ratio: share of the units that go, in [0, 1); where there are targets, they decide.
        scope: name of the allocation, see `allocation`.
        round_to: axis sizes come out as multiples of this where they can.
        only: kinds or name patterns to work on (empty: all).
        skip: kinds or name patterns to leave alone.
        seed: of everything random.
        target: what to come down to, like "macs=0.4"; see `targets`.
        max_ratio: no group loses more than this share of its units.
        min_units: no group is left with fewer units than this.
        ratios: (kind or pattern, ratio) pairs: groups that lose just that.
    """

    criterion: str = "l1"
    ratio: float = 0.5
    scope: str = "auto"
    round_to: int = 1
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    seed: int = 0
    target: tuple[str, ...] = ()
    max_ratio: float = 1.0
    min_units: int = 1
    ratios: tuple[tuple[str, float], ...] = ()

    def check(self) -> None:
        """Raises UsageError for a value that makes no sense, before any file is opened."""
        if not 0 <= self.ratio < 1:
            raise UsageError(f"ratio {self.ratio:g} is outside [0, 1): it is the share of units to remove, like 0.5")
        if self.seed < 0:
            raise UsageError(f"seed {self.seed} is negative: give 0 or more")
        self.constraints.check()
        resolve(self.criterion)
        allocations[self.scope]
        kinds = [target.kind for target in self.targets]
        for kind in kinds:
            if kinds.count(kind) > 1:
                raise UsageError(f"there are two targets for {kind}; give one")

    @property
    def constraints(self) -> Constraints:
        """What the allocation has to keep to."""
        return Constraints(self.round_to, self.max_ratio, self.min_units, self.ratios)

    @property
    def targets(self) -> list[Target]:
        """The targets as such. Raises UsageError for one that is none."""
        return [parse(text) for text in self.target]

    @property
    def resource(self) -> str:
        """What allocations that look at costs save: what the first target is about; see `Problem`."""
        resources = {"params": "parameters", "size": "weight_bytes"}
        return next((resources.get(target.kind, "macs") for target in self.targets), "size")


@dataclass(frozen=True)
class Planner:
    """A problem, what a recipe has decided already, and the family of cuts of one strategy.

    Attributes:
        problem: what the strategy decides on.
        groups: all groups of the request, those included that `decided` speaks of.
        decided: units lost by the groups that have a ratio of their own.
        family: of the strategy.
        round_to: axis sizes come out as multiples of this where they can.
    """

    problem: Problem
    groups: tuple[Group, ...]
    decided: Mapping[str, int]
    family: Family
    round_to: int

    def lost(self, t: float) -> Lost:
        """How many units every group loses at strength t."""
        lost = {**dict.fromkeys((group.id for group in self.groups), 0), **self.decided, **self.family(t)}
        return round_up(list(self.groups), lost, self.round_to) if self.round_to > 1 else lost


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
        scores: per group id, float64 [units].
        scope: name of the strategy.
        constraints: what it has to keep to.
        comparable: scores of different groups are on one scale.
        resource: what is to be saved, one of `allocation.base.RESOURCES`.
        damages: measured damage per group id, for strategies that need it; see `Problem`.
        seconds: measured times likewise.

    Raises UsageError for an unknown strategy, and for a ratio whose pattern matches no group.
    """
    decided = _decided(analysis, groups, constraints)
    free = [group for group in groups if group.id not in decided]
    problem = Problem(
        analysis,
        free,
        {group.id: scores[group.id] for group in free},
        {group.id: constraints.most(group) for group in free},
        {group.atom: group.units - decided[group.id] for group in groups if group.id in decided},
        comparable,
        resource if resource != "macs" or cost.measure(analysis).macs else "parameters",
        damages,
        seconds,
    )
    return Planner(problem, tuple(groups), decided, allocations[scope](problem), constraints.round_to)


def _decided(analysis: Analysis, groups: Sequence[Group], constraints: Constraints) -> dict[str, int]:
    """Units lost by the groups that a ratio of their own names."""
    decided: dict[str, int] = {}
    for pattern, ratio in constraints.ratios:
        for group in select(analysis, [pattern], ()):
            if any(group is each for each in groups):
                decided[group.id] = min(share(ratio, group.units), constraints.most(group))
    return decided


def decide(
    planner: Planner,
    targets: Sequence[Target],
    costly: Costly,
    progress: Progress = lambda _: None,
) -> Outcome:
    """The cut that meets the targets; see `targets.Search`.

    Args:
        planner: the family of cuts to search in.
        targets: one or more.
        costly: of a cut, for "latency" and "drop": what the original has, and what the cut has, by building it.
        progress: told what is being tried.

    Raises TargetError where there is no such cut.
    """
    sums = Sums(planner)
    search = Search(cache(planner.lost), sums.before, sums.after, costly, lambda: frozen_text(planner), progress)
    outcome = search.meet(targets)
    if planner.round_to > 1 or any(target.kind not in CHEAP for target in targets):
        return outcome
    lost = give_back(planner, outcome.lost, lambda lost: all(search.met(target, lost).holds for target in targets))
    return replace(outcome, lost=lost, met=tuple(search.met(target, lost) for target in targets))


def make_plan(
    analysis: Analysis,
    groups: Sequence[Group],
    scores: Mapping[str, Scores],
    request: Request,
    trials: Trials,
    *,
    jobs: int = 1,
    cache: Path | None = None,
    progress: Progress = lambda _: None,
) -> tuple[Plan, Outcome]:
    """Which units go, and what that makes of the targets.

    Args:
        analysis: the model.
        groups: those that may lose units.
        scores: per group id, float64 [units].
        request: ratio or targets, strategy and constraints.
        trials: builds and measures cuts, where the strategy or a target asks for it.
        jobs: processes for the measurements of a strategy.
        cache: folder to keep those in (None: nowhere).
        progress: told what is being done.

    Raises TargetError where the targets cannot be met, UsageError for what takes data that is not there.
    """
    damages, seconds = _measured(groups, scores, request, trials, jobs, cache, progress)
    plans = planner(
        analysis,
        groups,
        scores,
        request.scope,
        request.constraints,
        comparable=resolve(request.criterion).comparable,
        resource=request.resource,
        damages=damages,
        seconds=seconds,
    )

    def plan_of(lost: Lost) -> Plan:
        masks = [(group, weakest(scores[group.id], lost[group.id])) for group in groups]
        return replace(plan_from_masks(masks, dict(request.__dict__)), structure=structure_of(analysis))

    if request.targets:
        outcome = decide_aligned(plans, request.targets, lambda lost, kind: trials(plan_of(lost), kind), progress)
    elif seconds:
        outcome = never_slower(plans, request.ratio, lambda lost: trials.latency(plan_of(lost)))
    else:
        outcome = Outcome(plans.lost(request.ratio), request.ratio)
    return plan_of(outcome.lost), outcome


def _measured(
    groups: Sequence[Group],
    scores: Mapping[str, Scores],
    request: Request,
    trials: Trials,
    jobs: int,
    cache: Path | None,
    progress: Progress,
) -> tuple[Mapping[str, Curve], Mapping[str, Curve]]:
    """The measured damages and times that the strategy needs."""
    needs = allocations[request.scope].needs
    damages: Mapping[str, Curve] = NOTHING
    if "damages" in needs:
        if trials.data is None:
            raise UsageError(f"scope '{request.scope}' needs data to measure the groups on: give --data")
        found = measure_sensitivity(
            trials.path, trials.inspect, groups, scores, trials.data, jobs=jobs, cache=cache, progress=progress
        )
        damages = found.damages()
    return damages, trials.seconds_saved(groups, scores) if "seconds" in needs else NOTHING


def never_slower(planner: Planner, t: float, latency: Callable[[Lost], tuple[float, float]]) -> Outcome:
    """The cut at strength t, or half of that and so on until it is faster than the original; else none."""
    for _ in range(5):
        lost = planner.lost(t)
        before, after = latency(lost)
        if after < before:
            return Outcome(lost, t, (), (f"measured: {after / before:.3f} of the original's time",))
        t /= 2
    none = dict.fromkeys(planner.lost(0.0), 0)
    return Outcome(none, 0.0, (), ("every cut that was tried was measured to be slower than the original",))


def decide_aligned(
    planner: Planner, targets: Sequence[Target], costly: Costly, progress: Progress = lambda _: None
) -> Outcome:
    """As `decide`; for a latency, and unless a rounding was asked for, also with axes that kernels like.

    Of the cuts that meet the targets, plain and rounded, the one that leaves more of the model is taken: which it is
    depends on the kernels, so both are built and timed.
    """
    if planner.round_to > 1 or all(target.kind != "latency" for target in targets):
        return decide(planner, targets, costly, progress)
    found: list[Outcome] = []
    failure: TargetError | None = None
    for multiple in (1, _KERNELS_LIKE):
        try:
            found.append(decide(replace(planner, round_to=multiple), targets, costly, progress))
        except TargetError as error:
            failure = failure or error
    if not found:
        assert failure is not None
        raise failure
    return max(found, key=lambda outcome: planner.problem.amount(outcome.lost))


class Sums:
    """What the original has, and what a cut leaves, of everything that can be computed."""

    def __init__(self, planner: Planner) -> None:
        analysis = planner.problem.analysis
        stored = cost.before(analysis)
        self._planner = planner
        self._batch = cost.batch_size(analysis)
        self._overhead = file_bytes(analysis.model) - stored.weight_bytes
        self.before = {"params": stored.parameters, "macs": stored.macs, "size": file_bytes(analysis.model)}

    def after(self, lost: Lost) -> dict[str, float]:
        """Parameters, MACs of a sample, and bytes of the file, with what is no weight as it was."""
        problem = self._planner.problem
        left = problem.costs.measure(problem.kept(lost))
        return {
            "params": left.parameters,
            "macs": left.macs // self._batch,
            "size": left.weight_bytes + self._overhead,
        }


def give_back(planner: Planner, lost: Lost, holds: Callable[[Lost], bool]) -> Lost:
    """Put back unit after unit, those of most damage first, as long as the targets hold: none is lost for nothing."""
    lost, problem = dict(lost), planner.problem
    heap = [(-_undone(problem, g.id, lost), g.id) for g in problem.groups if lost[g.id]]
    heapq.heapify(heap)
    while heap:
        _, group = heapq.heappop(heap)
        lost[group] -= 1
        if not holds(lost):
            lost[group] += 1
        elif lost[group]:
            heapq.heappush(heap, (-_undone(problem, group, lost), group))
    return lost


def _undone(problem: Problem, group: str, lost: Lost) -> float:
    """The damage that goes with the last unit lost."""
    damage, count = problem.damage[group], lost[group]
    return float(damage[count] - damage[count - 1])


def frozen_text(planner: Planner) -> str:
    """What the largest weights left by the greatest cut are, and why their axes keep their sizes."""
    analysis = planner.problem.analysis
    shape_of = cost.shapes_after(analysis, planner.problem.kept(planner.lost(1.0)))
    sizes = {}
    for value in analysis.model.graph.initializers.values():
        if is_parameter(value):
            sizes[value.name or ""] = prod(shape_of(value.name or "") or ())
    reasons: dict[str, list[str]] = {}
    for axis in analysis.frozen:
        reasons.setdefault(axis.tensor, []).append(f"axis {axis.axis}: {axis.reason}")
    largest = sorted((name for name in sizes if name in reasons), key=lambda name: -sizes[name])[:3]
    named = "; ".join(f"'{name}' ({', '.join(reasons[name][:2])})" for name in largest)
    return f"; frozen: {named}" if named else "; nothing is frozen, but constraints or the last unit of each group hold"
