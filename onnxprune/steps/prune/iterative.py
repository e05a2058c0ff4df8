"""From a request to a plan, in one step or in several: score, cut, recover, and again with what is left.

Every step decides anew on the whole model: which units of the original have gone after it. What an earlier step has
removed stays away; what a later one removes is scored on what the earlier ones left, recovered. Nothing is rounded
step by step, so the last one ends where a single one would:

- uniform, and groups with a ratio of their own: exactly as many units of every group;
- global, greedy: exactly as many units in all; isomorphic: of every set of isomorphic groups;
- auto, knapsack, sensitivity: no more parameters and MACs than every group's share leaves; auto within a unit of that;
- targets: those of the request, met for the original; limits on units hold for all steps together.

Where earlier steps took more than the last one would, that stays. A ratio of scope latency is no such share: it is of
the time that can still be saved, measured anew in every step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from onnxprune.analysis import cost
from onnxprune.analysis.groups import Analysis, Group
from onnxprune.analysis.inspect import inspect
from onnxprune.dims import Atom, Dim, atoms
from onnxprune.errors import TargetError, UsageError
from onnxprune.model.file import file_bytes
from onnxprune.steps.base import NONE
from onnxprune.steps.plan import Plan, plan_from_masks, structure_of
from onnxprune.steps.prune import schedule, score
from onnxprune.steps.prune.allocation.base import Curve, Scores, allocations, weakest
from onnxprune.steps.prune.budget_search import decide_aligned, never_slower
from onnxprune.steps.prune.candidates import Trials
from onnxprune.steps.prune.criteria.expression import resolve
from onnxprune.steps.prune.options import PruneOptions
from onnxprune.steps.prune.planner import NOTHING, planner
from onnxprune.steps.prune.sensitivity import measure as measure_sensitivity
from onnxprune.steps.prune.targets import Outcome
from onnxprune.steps.recover.methods import added_biases
from onnxprune.support.progress import within

_GONE = -np.inf
Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Stand:
    """What the steps so far have left of a model.

    Attributes:
        path: its file.
        analysis: of that.
        groups: its groups that may lose more, by the ids that they have in the original.
        left: per id of a group of the original, the positions of the units that are left of it.
    """

    path: Path
    analysis: Analysis
    groups: Mapping[str, Group]
    left: Mapping[str, Positions]

    def of_original(self, scores: Mapping[str, Scores], original: Sequence[Group]) -> dict[str, Scores]:
        """Scores of the groups as they are, as scores of the original's: -inf for what has gone."""
        found = {}
        for group in original:
            found[group.id] = np.full(group.units, _GONE)
            mine = self.groups.get(group.id)
            found[group.id][self.left[group.id]] = 0.0 if mine is None else scores[mine.id]
        return found

    def curves(self, measured: Mapping[str, Curve], original: Sequence[Group]) -> dict[str, Curve]:
        """Curves of the groups as they are, as curves of the original's groups."""
        found = {}
        for group in original:
            gone = group.units - len(self.left[group.id])
            mine = self.groups.get(group.id)
            curve = Curve((0,), (0.0,)) if mine is None else measured[mine.id]
            found[group.id] = replace(curve, lost=tuple(gone + lost for lost in curve.lost))
        return found


def make_plan(
    analysis: Analysis, groups: Sequence[Group], request: PruneOptions, trials: Trials
) -> tuple[Plan, Outcome, dict[str, Scores]]:
    """Which units go.

    Args:
        analysis: the model.
        groups: those that may lose units.
        request: ratio or targets, strategy, constraints and steps.
        trials: builds and measures cuts of the model, and knows with what.

    Returns the plan, what it makes of the targets, and the scores of the last step, per group id float64 [units], -inf
    for what had gone by then. Raises TargetError where the targets cannot be met, UsageError for what takes data that
    is not there.
    """
    ways = _ways(request, analysis, trials)
    stand = Stand(trials.path, analysis, {g.id: g for g in groups}, {g.id: np.arange(g.units) for g in groups})
    for number, way in enumerate(ways, 1):
        doing = trials if request.steps == 1 else _told(trials, f"step {number} of {request.steps}")
        doing.context.progress("scoring")
        own = score.scores(doing.context, stand.analysis, list(stand.groups.values()), request.criterion)
        scores = stand.of_original(own, groups)
        try:
            plan, outcome = _decide(analysis, groups, stand, own, scores, way, doing)
        except TargetError:  # what cannot be met on the way cannot be met in the end: that is to be told
            plan, outcome = _decide(analysis, groups, stand, own, scores, ways[-1], doing)
        if number < len(ways):
            stand = _after(analysis, groups, plan, doing.step(plan, number))
    notes = doing.notes if any(target.kind == "drop" for target in request.targets) else ()
    outcome = replace(outcome, remarks=(*outcome.remarks, *notes))
    return replace(plan, request=dict(request.__dict__)), outcome, scores


def _told(trials: Trials, where: str) -> Trials:
    """The same, with progress that says in which step it is."""
    progress = trials.context.progress
    return replace(trials, context=replace(trials.context, progress=lambda said: progress(within(where, said))))


def _ways(request: PruneOptions, analysis: Analysis, trials: Trials) -> list[PruneOptions]:
    """What each step comes down to, counted from the original; the last one's is what was asked for."""
    if request.steps == 1:
        return [request]
    schedule.check_targets(request.targets)
    original: dict[str, float] = {}
    if any(not target.relative for target in request.targets):
        before = cost.before(analysis)
        original = {"params": before.parameters, "macs": before.macs, "size": file_bytes(analysis.model)}
    if any(target.kind == "latency" and not target.relative for target in request.targets):
        original["latency"] = trials.compare(trials.path)[0]
    ways, before_it = [], 0.0
    for step in range(1, request.steps + 1):
        done = step / request.steps
        ratio = schedule.ratio(request.ratio, done, request.schedule)
        own = tuple((name, schedule.ratio(each, done, request.schedule)) for name, each in request.ratios)
        target = tuple(schedule.on_the_way(request.targets, original, done, request.schedule))
        # What time may still be saved is measured in every step, so a ratio speaks of that.
        of_rest = "seconds" in allocations[request.scope].needs
        told = 1 - (1 - ratio) / (1 - before_it) if of_rest else ratio
        ways.append(replace(request, ratio=told, ratios=own, target=target))
        before_it = ratio
    return ways


def _decide(
    analysis: Analysis,
    groups: Sequence[Group],
    stand: Stand,
    own: Mapping[str, Scores],
    scores: Mapping[str, Scores],
    request: PruneOptions,
    trials: Trials,
) -> tuple[Plan, Outcome]:
    """The plan of one step, for the original; `own` scores the groups that are there, `scores` the original's."""
    damages, seconds = _measured(stand, own, groups, request, trials)
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

    def plan_of(lost: Mapping[str, int]) -> Plan:
        masks = [(group, weakest(scores[group.id], lost[group.id])) for group in groups]
        return replace(plan_from_masks(masks, dict(request.__dict__)), structure=structure_of(analysis))

    if request.targets:
        outcome = decide_aligned(
            plans,
            request.targets,
            lambda lost, kind: trials(plan_of(lost), kind),
            trials.context.progress,
            added_biases(analysis, trials.context.method),
        )
    elif seconds:
        outcome = never_slower(plans, request.ratio, lambda lost: trials.latency(plan_of(lost)))
    else:
        outcome = Outcome(plans.lost(request.ratio), request.ratio)
    return plan_of(outcome.lost), outcome


def _measured(
    stand: Stand, own: Mapping[str, Scores], original: Sequence[Group], request: PruneOptions, trials: Trials
) -> tuple[Mapping[str, Curve], Mapping[str, Curve]]:
    """The measured damages and times that the strategy needs, of the original's groups."""
    needs, context = allocations[request.scope].needs, trials.context
    groups = list(stand.groups.values())
    damages = seconds = NOTHING
    if "damages" in needs:
        if context.data is None:
            raise UsageError(f"scope '{request.scope}' needs data to measure the groups on: give --data")
        plain = replace(context, method=NONE, metric=None, apart=None)
        found = measure_sensitivity(stand.path, groups, own, plain)
        damages = stand.curves(found.damages(), original)
    if "seconds" in needs:
        seconds = stand.curves(trials.seconds_saved(stand.path, groups, own), original)
    return damages, seconds


def _after(original: Analysis, groups: Sequence[Group], plan: Plan, path: Path) -> Stand:
    """What a plan has left of a model, from the file that it was built to."""
    keep = plan.keep(original)
    left = {g.id: np.flatnonzero(keep.get(g.atom, np.ones(g.units, dtype=np.bool_))) for g in groups}
    current = inspect(path)
    twins = _twins(original, current, {atom: int(mask.sum()) for atom, mask in keep.items()})
    known = {group.atom: group.id for group in groups}
    found = {known[twins[g.atom]]: g for g in current.groups if g.atom in twins and twins[g.atom] in known}
    return Stand(path, current, found, left)


def _twins(original: Analysis, current: Analysis, kept: Mapping[Atom, int]) -> dict[Atom, Atom]:
    """Which atom of the original each atom of what is left of it was.

    Names of groups do not tell: recovery brings new biases, and an atom of one unit is in no expression any more. Most
    weights keep their names, and on each of their axes the atoms of more than one unit stand in the same order.
    """
    votes: dict[Atom, Counter[Atom]] = {}
    for name, dims in current.dims.items():
        for mine, its in zip(dims, original.dims.get(name, ()), strict=False):
            here, there = _atoms(mine, {}), _atoms(its, kept)
            if [size for _, size in here] == [size for _, size in there]:
                for (atom, _), (other, _) in zip(here, there, strict=True):
                    votes.setdefault(atom, Counter())[other] += 1
    return {atom: counted.most_common(1)[0][0] for atom, counted in votes.items()}


def _atoms(dim: Dim, kept: Mapping[Atom, int]) -> list[tuple[Atom, int]]:
    """The atoms of an axis of which more than one unit is left, with how many those are."""
    found = [(atom, kept.get(atom, atom.size)) for atom in dict.fromkeys(atoms(dim))]
    return [(atom, size) for atom, size in found if size > 1]
