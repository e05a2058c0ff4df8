"""From options to a cut: score what is there, set up the strategy, and find the strength that meets what was asked for.

In a loop every round decides anew on the whole model: which units of the original are removed after it. What an earlier
round has removed stays removed; what a later one removes is scored on what the earlier ones left. Nothing is rounded
round by round, so the last one ends where a single one would:

- uniform, and groups with a ratio of their own: exactly as many units of every group;
- auto, global: exactly as many units in all; isomorphic: of every set of isomorphic groups;
- knapsack, sensitivity: no more parameters and MACs than every group's share leaves;
- targets: those of the options, met for the original; limits on units hold for all rounds together.

Where earlier rounds took more than the last one would, that stays. A ratio of scope latency is not such a share: it is
of the time that can still be saved, measured anew in every round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from onnxprune.analysis import cost
from onnxprune.analysis.groups import Group
from onnxprune.dims import Atom, Mask
from onnxprune.errors import TargetError, UsageError
from onnxprune.model.file import file_bytes
from onnxprune.steps.base import Context, Loop
from onnxprune.steps.prune import schedule
from onnxprune.steps.prune.allocation.base import Curve, Scores, allocations, weakest
from onnxprune.steps.prune.budget_search import decide_aligned, never_slower
from onnxprune.steps.prune.candidates import Candidates
from onnxprune.steps.prune.criteria.base import Criterion
from onnxprune.steps.prune.kernels import liked_multiples, narrowest
from onnxprune.steps.prune.options import PruneOptions
from onnxprune.steps.prune.planner import NO_MULTIPLES, NOTHING, planner
from onnxprune.steps.prune.score import UnitScores, is_compensated, score_units
from onnxprune.steps.prune.sensitivity import measure_sensitivity as measure_sensitivity
from onnxprune.steps.prune.shipped import StoredSizes
from onnxprune.steps.prune.targets import HARM, Outcome
from onnxprune.steps.recover.methods import added_biases
from onnxprune.steps.recover.step import Recover
from onnxprune.steps.state import State

NARROW = (
    "the target takes channels below 16, where integer kernels get slower: a smaller cut may well be faster, and "
    "--target latency finds it"
)


@dataclass(frozen=True)
class Decision:
    """A cut of the original.

    Attributes:
        left: per atom of the original, the units that are left: bool, shape [units].
        outcome: how many units each group loses, and what that makes of the targets.
        scores: per group id of the original, float64 [units]; 0 for units that earlier rounds have removed.
        removed: per group id, the units that earlier rounds have removed: bool, shape [units].
        made: the state after the cut and its recovery, where it had to be made to measure it.
        scored: of the units as they were before the cut, by the ids of that model's groups.
    """

    left: Mapping[Atom, Mask]
    outcome: Outcome
    scores: Mapping[str, Scores]
    removed: Mapping[str, Mask]
    made: State | None = None
    scored: UnitScores | None = None


@dataclass(frozen=True)
class _Problem:
    """What one round decides on: the groups of the original, and those of the model now by the original's ids."""

    state: State
    groups: Sequence[Group]
    now: Mapping[str, Group]
    own: Mapping[str, Scores]
    candidates: Candidates
    limits: Mapping[str, int] = field(default_factory=dict)
    trials: Mapping[str, tuple[int, float]] = field(default_factory=dict)

    @property
    def removed(self) -> dict[str, Mask]:
        """Per group id, the units that earlier rounds have removed."""
        return {group.id: ~self.state.mask(group) for group in self.groups}

    @property
    def scores(self) -> dict[str, Scores]:
        """Scores of the groups as they are, for the units of the original's groups."""
        found = {}
        for group in self.groups:
            found[group.id] = np.zeros(group.units)
            if group.id in self.own:
                found[group.id][self.state.mask(group)] = self.own[group.id]
        return found

    def of_original(self, measured: Mapping[str, Curve]) -> dict[str, Curve]:
        """Curves of the groups as they are, as curves of the original's groups."""
        found = {}
        for group in self.groups:
            already = group.units - int(self.state.mask(group).sum())
            curve = measured.get(group.id, Curve((0,), (0.0,)))
            found[group.id] = replace(curve, lost=tuple(already + lost for lost in curve.lost))
        return found


def decide(
    state: State,
    groups: Sequence[Group],
    options: PruneOptions,
    context: Context,
    *,
    limits: Mapping[str, int] = MappingProxyType({}),
    scored: UnitScores | None = None,
    trials: Mapping[str, tuple[int, float]] = MappingProxyType({}),
) -> Decision:
    """Which units go.

    Args:
        state: the model so far.
        groups: those of the original that may lose units.
        options: ratio or targets, strategy and limits.
        context: data and devices, the recovery that follows, and where in a loop this is.
        limits: the most units that groups may lose, by id, where the options would allow more.
        scored: scores of the units as they are, where somebody has them.
        trials: the harm that trials of single groups did, see `trials.measure_trials`.

    Raises TargetError where the targets cannot be met, UsageError for what takes data that is not there.
    """
    recover = next((each for each in context.following if isinstance(each, Recover)), None)
    candidates = Candidates(state, context, recover)
    now = state.now(groups)
    context.progress("scoring")
    criterion = options.scored_by(data=context.samples is not None)
    scored = scored or _scored(state, list(now.values()), criterion, context)
    scores = {name: scored.scores[group.id] for name, group in now.items()}
    problem = _Problem(state, groups, now, scores, candidates, limits, trials)
    on_the_way = _on_the_way(options, context.loop, problem)
    try:
        outcome = _outcome(problem, on_the_way, context, comparable=criterion.comparable)
    except TargetError:  # what cannot be met on the way cannot be met in the end: that is what to report
        if on_the_way is options:
            raise
        outcome = _outcome(problem, options, context, comparable=criterion.comparable)
    for target in on_the_way.targets:
        if target.kind in HARM:
            outcome = replace(outcome, remarks=(*outcome.remarks, *candidates.notes(target.kind)))
    outcome = replace(outcome, remarks=(*outcome.remarks, *scored.remarks(criterion.name)))
    left = _masks(problem)(outcome.lost)
    return Decision(left, outcome, problem.scores, problem.removed, candidates.known(left), scored)


def _scored(state: State, groups: Sequence[Group], criterion: Criterion, context: Context) -> UnitScores:
    """Scores of the groups as they are; those of the original are remembered where many recipes are tried on it."""
    if context.scores is None or state.analysis is not state.original:
        return score_units(context, state.analysis, groups, criterion)
    key = f"{criterion.name} {is_compensated(context)} {' '.join(group.id for group in groups)}"
    found: UnitScores = context.scores(key, lambda: score_units(context, state.analysis, groups, criterion))
    return found


def _on_the_way(options: PruneOptions, loop: Loop, problem: _Problem) -> PruneOptions:
    """What a round comes down to, counted from the original; the last one's is what was asked for."""
    if loop.rounds == 1:
        return options
    schedule.check_schedule_targets(options.targets)
    if loop.done >= 1 and "seconds" not in allocations[options.scope].needs:
        return options
    original: dict[str, float] = {}
    analysis = problem.state.original
    if any(not target.relative for target in options.targets):
        before = cost.before(analysis)
        original = {"params": before.parameters, "macs": before.macs, "size": file_bytes(analysis.model)}
    if any(target.kind == "latency" and not target.relative for target in options.targets):
        original["latency"] = problem.candidates.seconds
    ratio = schedule.ratio(options.ratio, loop.done, loop.schedule)
    own = {name: schedule.ratio(each, loop.done, loop.schedule) for name, each in options.ratios}
    target = tuple(schedule.on_the_way(options.targets, original, loop.done, loop.schedule))
    if "seconds" in allocations[options.scope].needs:  # what time may still be saved is measured in every round
        before_it = schedule.ratio(options.ratio, loop.before, loop.schedule) if loop.before else 0.0
        ratio = 1 - (1 - ratio) / (1 - before_it)
    return replace(options, ratio=ratio, ratios=tuple(own.items()), target=target)


Lost = Mapping[str, int]


def _masks(problem: _Problem) -> Callable[[Lost], dict[Atom, Mask]]:
    """From how many units each group loses to which are left."""
    scores, removed = problem.scores, problem.removed

    def left(lost: Lost) -> dict[Atom, Mask]:
        return {
            group.atom: weakest(scores[group.id], lost[group.id], removed[group.id])
            for group in problem.groups
            if lost.get(group.id, 0)
        }

    return left


def _outcome(problem: _Problem, options: PruneOptions, context: Context, *, comparable: bool) -> Outcome:
    """How many units every group loses after the round."""
    measured = _measured(problem, options, context)
    narrow = _narrowest(problem, options, context)
    if narrow:
        wide = {name: min(most, problem.limits.get(name, most)) for name, most in narrow.items()}
        try:
            return _outcome_within(problem, options, context, {**problem.limits, **wide}, measured, comparable)
        except TargetError:
            found = _outcome_within(problem, options, context, problem.limits, measured, comparable)
            return replace(found, remarks=(*found.remarks, NARROW))
    return _outcome_within(problem, options, context, problem.limits, measured, comparable)


def _outcome_within(
    problem: _Problem,
    options: PruneOptions,
    context: Context,
    limits: Mapping[str, int],
    measured: tuple[Mapping[str, Curve], Mapping[str, Curve]],
    comparable: bool,
) -> Outcome:
    """The same where groups lose at most so many units as `limits` says."""
    candidates, masks = problem.candidates, _masks(problem)
    plans = planner(
        problem.state.original,
        problem.groups,
        problem.scores,
        options,
        comparable=comparable,
        measured=measured,
        removed=problem.removed,
        liked=_liked(problem, options, context),
        limits={**limits, **{group.id: 0 for group in problem.groups if group.id not in problem.now}},
        trials=problem.trials,
    )

    def costly(lost: Lost, kind: str) -> tuple[float, float]:
        """What the original has and what a cut has: seconds for "latency"; for harm 0 and the harm."""
        if kind == "latency":
            return candidates.latency(masks(lost))
        found = (candidates.drop if kind == "drop" else candidates.damage)(masks(lost))
        if all(found <= target.limit for target in options.targets if target.kind in HARM):
            candidates.keep(masks(lost))
        return 0.0, found

    if options.targets:
        method = None if candidates.recover is None else candidates.recover.chosen(data=context.samples is not None)
        added = added_biases(problem.state.original, method)
        stored = _stored(problem, options)
        found = decide_aligned(plans, options.targets, costly, context.progress, added, stored)
        said = (
            *_of_what(options, candidates),
            *plans.aligned(found.lost),
            *plans.undecided(found.strength, options.scope),
        )
        return replace(found, remarks=(*found.remarks, *said))
    if measured[1]:
        return never_slower(plans, options.ratio, lambda lost: candidates.latency(masks(lost)))
    strength, lost = plans.of_ratio(options.ratio)
    remarks = (*plans.aligned(lost), *plans.undecided(strength, options.scope))
    return Outcome(lost, strength, remarks=remarks)


def _stored(problem: _Problem, options: PruneOptions) -> StoredSizes | None:
    """What the weights end as, where a target is of the size and a quantization follows."""
    shipped = problem.candidates.shipped
    if shipped is None or all(target.kind != "size" for target in options.targets):
        return None
    return shipped.sizes(State.of(problem.state.original))


def _of_what(options: PruneOptions, candidates: Candidates) -> tuple[str, ...]:
    """Says that size and time are those of the quantized file."""
    kinds = [kind for kind in ("size", "latency") if any(target.kind == kind for target in options.targets)]
    if candidates.shipped is None or not kinds:
        return ()
    return (f"{' and '.join(kinds)} of the file as it ends, quantized to {candidates.shipped.type}",)


def _liked(problem: _Problem, options: PruneOptions, context: Context) -> Mapping[str, int]:
    """What kernels like, where the tool chooses how many units each group loses; other scopes define that."""
    if options.targets or options.scope == "auto":
        return liked_multiples(problem.groups, problem.state.model, context)
    return NO_MULTIPLES


def _narrowest(problem: _Problem, options: PruneOptions, context: Context) -> dict[str, int]:
    """The most units that groups may lose before kernels get slower, where the tool chooses how many they lose."""
    if options.round_to is not None or not _liked(problem, options, context):
        return {}
    units = {group.id: group.units for group in problem.groups}
    least = narrowest(problem.groups, problem.state.model, context)
    return {name: units[name] - kept for name, kept in least.items()}


def _measured(
    problem: _Problem, options: PruneOptions, context: Context
) -> tuple[Mapping[str, Curve], Mapping[str, Curve]]:
    """The measured damages and times that the strategy needs, of the original's groups."""
    needs = allocations[options.scope].needs
    damages = seconds = NOTHING
    if "damages" in needs:
        if context.data is None:
            raise UsageError(f"scope '{options.scope}' needs data to measure the groups on: give --data")
        analysis, names = problem.state.analysis, {group.id: name for name, group in problem.now.items()}
        base = State.of(analysis, problem.state.source if not problem.state.left else None)
        scores = {group.id: problem.own[name] for name, group in problem.now.items()}
        plain = replace(context, metric=None, apart=None)
        found = measure_sensitivity(base, list(problem.now.values()), scores, plain).damages()
        damages = problem.of_original({names[name]: curve for name, curve in found.items()})
    if "seconds" in needs:
        seconds = problem.of_original(problem.candidates.seconds_saved(problem.now, problem.own))
    return damages, seconds
