"""The cut of a family that meets targets, on exact costs and on models that are built; what stands in the way."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from math import prod

from onnxprune.analysis import cost
from onnxprune.steps.prune.allocation.base import Lost, Problem
from onnxprune.dims import Dim, kept_size
from onnxprune.errors import TargetError
from onnxprune.model.file import file_bytes, is_parameter
from onnxprune.steps.prune.planner import Planner
from onnxprune.support.progress import Progress, silent
from onnxprune.steps.prune.targets import CHEAP, Outcome, Search, Target

# Kernels work on blocks of channels; for other machines see: onnxprune benchmark --alignment, and --round-to.
_KERNELS_LIKE = 8
# What a new bias takes in a file beside its entries: an Add and three names, where there was none.
_ADDED_BYTES = 256
# Of a cut, for "latency" and "drop": what the original has, and what the cut has, by building it.
Costly = Callable[[Lost, str], tuple[float, float]]


def decide(
    planner: Planner,
    targets: Sequence[Target],
    costly: Costly,
    progress: Progress = silent,
    added: Sequence[tuple[Dim, int]] = (),
) -> Outcome:
    """The cut that meets the targets; see `targets.Search`.

    Args:
        planner: the family of cuts to search in.
        targets: one or more.
        costly: of a cut, for "latency" and "drop": what the original has, and what the cut has, by building it.
        progress: told what is being tried.
        added: what recovery will put into what is left, see `recover.added_biases`.

    Raises TargetError where there is no such cut.
    """
    sums = Sums(planner, added)
    search = Search(cache(planner.lost), sums.before, sums.after, costly, lambda: frozen_text(planner), progress)
    outcome = search.meet(targets)
    if planner.round_to > 1 or any(target.kind not in CHEAP for target in targets):
        return outcome
    lost = give_back(planner, outcome.lost, lambda lost: all(search.met(target, lost).holds for target in targets))
    return replace(outcome, lost=lost, met=tuple(search.met(target, lost) for target in targets))


def never_slower(planner: Planner, t: float, latency: Callable[[Lost], tuple[float, float]]) -> Outcome:
    """The cut at strength t, or half of that and so on until it is faster than the original; else nothing more."""
    for _ in range(5):
        lost = planner.lost(t)
        before, after = latency(lost)
        if after < before:
            return Outcome(lost, t, (), (f"measured: {after / before:.3f} of the original's time",))
        t /= 2
    return Outcome(
        dict(planner.gone), 0.0, (), ("every cut that was tried was measured to be slower than the original",)
    )


def decide_aligned(
    planner: Planner,
    targets: Sequence[Target],
    costly: Costly,
    progress: Progress = silent,
    added: Sequence[tuple[Dim, int]] = (),
) -> Outcome:
    """As `decide`; for a latency, and unless a rounding was asked for, also with axes that kernels like.

    Of the cuts that meet the targets, plain and rounded, the one that leaves more of the model is taken: which it is
    depends on the kernels, so both are built and timed.
    """
    if planner.round_to > 1 or all(target.kind != "latency" for target in targets):
        return decide(planner, targets, costly, progress, added)
    found: list[Outcome] = []
    failure: TargetError | None = None
    for multiple in (1, _KERNELS_LIKE):
        try:
            found.append(decide(replace(planner, round_to=multiple), targets, costly, progress, added))
        except TargetError as error:
            failure = failure or error
    if not found:
        assert failure is not None
        raise failure
    return max(found, key=lambda outcome: planner.problem.amount(outcome.lost))


class Sums:
    """What the original has, and what a cut leaves, of everything that can be computed."""

    def __init__(self, planner: Planner, added: Sequence[tuple[Dim, int]] = ()) -> None:
        analysis = planner.problem.analysis
        stored = cost.before(analysis)
        self._planner = planner
        self._added = added
        self._batch = cost.batch_size(analysis)
        self._overhead = file_bytes(analysis.model) - stored.weight_bytes
        self.before = {"params": stored.parameters, "macs": stored.macs, "size": file_bytes(analysis.model)}

    def after(self, lost: Lost) -> dict[str, float]:
        """Parameters, MACs of a sample, bytes of the file: new biases come in, and what is no weight is as it was."""
        problem = self._planner.problem
        kept = problem.kept(lost)
        left = problem.costs.measure(kept)
        biases = [(kept_size(dim, kept), each) for dim, each in self._added] if any(lost.values()) else []
        return {
            "params": left.parameters + sum(entries for entries, _ in biases),
            "macs": left.macs // self._batch,
            "size": left.weight_bytes + self._overhead + sum(entries * each + _ADDED_BYTES for entries, each in biases),
        }


def give_back(planner: Planner, lost: Lost, holds: Callable[[Lost], bool]) -> Lost:
    """Put back unit after unit, those of most damage first, as long as the targets hold: none is lost for nothing.

    What has gone in earlier steps stays away.
    """
    lost, problem = dict(lost), planner.problem
    heap = [(-_undone(problem, g.id, lost), g.id) for g in problem.groups if lost[g.id] > planner.gone[g.id]]
    heapq.heapify(heap)
    while heap:
        _, group = heapq.heappop(heap)
        lost[group] -= 1
        if not holds(lost):
            lost[group] += 1
        elif lost[group] > planner.gone[group]:
            heapq.heappush(heap, (-_undone(problem, group, lost), group))
    return lost


def _undone(problem: Problem, group: str, lost: Lost) -> float:
    """The damage that goes with the last unit lost."""
    damage, count = problem.damage[group], lost[group]
    return float(damage[count] - damage[count - 1])


def frozen_text(planner: Planner) -> str:
    """What keeps units: wishes of the request, else why axes of the largest weights that are left keep their sizes."""
    if planner.held:
        return f"; what the request keeps: {'; '.join(planner.held)}"
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
    return f"; frozen: {named}" if named else "; nothing is frozen, but the last unit of each group has to stay"
