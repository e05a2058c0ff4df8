"""The cut of a family that meets targets, on exact costs and on models that are built; what prevents it."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from math import prod

from onnxprune.analysis import cost
from onnxprune.analysis.cost_model import CostTerms
from onnxprune.dims import Dim, kept_size
from onnxprune.errors import TargetError
from onnxprune.model.file import file_bytes
from onnxprune.model.weights import is_weight
from onnxprune.steps.prune.allocation.base import AllocationProblem, Lost
from onnxprune.steps.prune.planner import SIZES_AS_THEY_COME, Planner
from onnxprune.steps.prune.shipped import StoredSizes
from onnxprune.steps.prune.targets import CHEAP, HARM, Met, Outcome, Target, format_quantity
from onnxprune.support.progress import Counted, Progress, silent

# What a new bias takes in a file beside its entries: an Add and three names, where there was none.
_ADDED_BYTES = 256
# Of a cut, for "latency" and harm: what the original has, and what the cut has, by building it.
Costly = Callable[[Lost, str], tuple[float, float]]


def search_budget(
    planner: Planner,
    targets: Sequence[Target],
    costly: Costly,
    progress: Progress = silent,
    added: Sequence[tuple[Dim, int]] = (),
    stored: StoredSizes | None = None,
) -> Outcome:
    """The cut that meets the targets; see `targets.Search`.

    Args:
        planner: the family of cuts to search in.
        targets: one or more.
        costly: of a cut, for "latency" and harm: what the original has, and what the cut has, by building it.
        progress: is called with what is being tried.
        added: what recovery will put into what is left, see `recover.added_biases`.
        stored: what the file ends as, where it is quantized.

    Raises TargetError where there is no such cut.
    """
    sums = Sums(planner, added, stored)
    search = Search(cache(planner.lost), sums.before, sums.after, costly, lambda: frozen_text(planner), progress)
    outcome = search.meet(targets)
    if any(target.kind not in CHEAP for target in targets):
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
        dict(planner.already), 0.0, (), ("every cut that was tried was measured to be slower than the original",)
    )


def decide_aligned(
    planner: Planner,
    targets: Sequence[Target],
    costly: Costly,
    progress: Progress = silent,
    added: Sequence[tuple[Dim, int]] = (),
    stored: StoredSizes | None = None,
) -> Outcome:
    """As `search_budget`; for a latency, and unless a rounding was asked for, also with axis sizes as they come.

    Of the cuts that meet the targets, plain and aligned, the one that leaves more of the model is taken: which it is
    depends on the kernels, so both are built and timed.
    """
    if planner.asked or not planner.multiples or all(target.kind != "latency" for target in targets):
        return search_budget(planner, targets, costly, progress, added, stored)
    found: list[Outcome] = []
    failure: TargetError | None = None
    for multiples in (SIZES_AS_THEY_COME, planner.multiples):
        try:
            tried = replace(planner, multiples=multiples)
            found.append(search_budget(tried, targets, costly, progress, added, stored))
        except TargetError as error:
            failure = failure or error
    if not found:
        assert failure is not None
        raise failure
    return max(found, key=lambda outcome: planner.problem.amount(outcome.lost))


class Sums:
    """What the original has, and what a cut leaves, of everything that can be computed."""

    def __init__(
        self, planner: Planner, added: Sequence[tuple[Dim, int]] = (), stored: StoredSizes | None = None
    ) -> None:
        analysis = planner.problem.analysis
        before = cost.before(analysis)
        self._planner = planner
        self._added = added
        self._batch = cost.batch_size(analysis)
        self._weights = None if stored is None else CostTerms(analysis, stored.bits)
        self._overhead = file_bytes(analysis.model) - before.weight_bytes
        if stored is not None and self._weights is not None:  # scales count as if none went: what comes out is smaller
            self._overhead = stored.whole - self._weights.measure({}).weight_bytes
        self.before = {"params": before.parameters, "macs": before.macs, "size": file_bytes(analysis.model)}

    def after(self, lost: Lost) -> dict[str, float]:
        """Parameters, MACs of a sample, bytes of the file: new biases come in, and all but weights is as it was."""
        problem = self._planner.problem
        kept = problem.kept(lost)
        left = problem.costs.measure(kept)
        weight_bytes = left.weight_bytes if self._weights is None else self._weights.measure(kept).weight_bytes
        biases = [(kept_size(dim, kept), each) for dim, each in self._added] if any(lost.values()) else []
        return {
            "params": left.parameters + sum(entries for entries, _ in biases),
            "macs": left.macs // self._batch,
            "size": weight_bytes + self._overhead + sum(entries * each + _ADDED_BYTES for entries, each in biases),
        }


def give_back(planner: Planner, lost: Mapping[str, int], holds: Callable[[Lost], bool]) -> Lost:
    """Put back unit after unit, those of most damage first, as long as the targets hold: none is removed for nothing.

    Aligned groups get back as many at once as keep them aligned. What earlier steps have removed stays removed.
    """
    left, problem = dict(lost), planner.problem
    heap = [(-_undone(problem, g.id, left), g.id) for g in problem.groups if left[g.id] > planner.already[g.id]]
    heapq.heapify(heap)
    while heap:
        _, group = heapq.heappop(heap)
        before, left[group] = left[group], planner.given_back(group, left)
        if not holds(left):
            left[group] = before
        elif left[group] > planner.already[group]:
            heapq.heappush(heap, (-_undone(problem, group, left), group))
    return left


def _undone(problem: AllocationProblem, group: str, lost: Lost) -> float:
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
        if is_weight(value):
            sizes[value.name or ""] = prod(shape_of(value.name or "") or ())
    reasons: dict[str, list[str]] = {}
    for axis in analysis.frozen:
        reasons.setdefault(axis.tensor, []).append(f"axis {axis.axis}: {axis.reason}")
    largest = sorted((name for name in sizes if name in reasons), key=lambda name: -sizes[name])[:3]
    named = "; ".join(f"'{name}' ({', '.join(reasons[name][:2])})" for name in largest)
    return f"; frozen: {named}" if named else "; nothing is frozen, but the last unit of each group has to stay"


# Two careful measurements of the same pair of models differ by about this share.
_SCATTER = 0.02


# Strengths are distinguished to this; where models are built and run for each, after so many steps.
_STEPS = 20


_COSTLY_STEPS = 7
# Damage changes smoothly with strength, and the default looks for it: fewer cuts will do.
_DAMAGE_STEPS = 5


def _is_safe(met: Met) -> bool:
    """Will it still be met when somebody measures again? Latencies scatter, so a search stops a little below."""
    if met.target.kind == "latency" and met.limit < met.before:
        return met.reached <= met.limit * (1 - _SCATTER)
    return met.holds


@dataclass
class Search:
    """Looks for the cut that meets targets in a family of cuts.

    Attributes:
        lost: the family: what every group loses at strength t.
        before: what the original has of the CHEAP kinds.
        cheap: what a cut leaves of them, computed.
        costly: for "latency" and harm, what the original has, and what a cut has, by building it; 0 for harm.
        frozen: says in words what prevents it, for the message of a failure.
        progress: is called with what is being tried.
    """

    lost: Callable[[float], Lost]
    before: Mapping[str, float]
    cheap: Callable[[Lost], Mapping[str, float]]
    costly: Callable[[Lost, str], tuple[float, float]]
    frozen: Callable[[], str] = lambda: ""
    progress: Callable[[str], None] = lambda _: None
    _known: dict[tuple[object, ...], tuple[float, float]] = field(default_factory=dict)

    def meet(self, targets: Sequence[Target]) -> Outcome:
        """The least cut that meets all targets, or the largest within harm where that is all that is asked for.

        Raises TargetError, saying how far it gets and what is frozen, where there is none.
        """
        cheap = [target for target in targets if target.kind in CHEAP]
        latency = [target for target in targets if target.kind == "latency"]
        harm = [target for target in targets if target.kind in HARM]
        t = self._least(cheap, 0.0, _STEPS) if cheap else 0.0
        if latency:
            t = self._confirmed(latency, self._least(latency, t, _COSTLY_STEPS))
        if harm and not cheap and not latency:
            t = self._most(harm)
        lost = self.lost(t)
        met = tuple(self.met(target, lost) for target in targets)
        for each in met:
            if not each.holds:
                raise TargetError(
                    f"{each}: the cut that meets the other targets does more damage than that; recover with --data, "
                    "allow more harm, or ask for less"
                )
        return Outcome(lost, t, met)

    def met(self, target: Target, lost: Lost) -> Met:
        """The result of a cut for a target."""
        before, after = self._amounts(target.kind, lost)
        return Met(target, before, target.limit * before if target.relative else target.limit, after)

    def _amounts(self, kind: str, lost: Lost) -> tuple[float, float]:
        """What the original has, and what the cut leaves."""
        if kind in CHEAP:
            return self.before[kind], self.cheap(lost)[kind]
        key = (kind, *sorted(lost.items()))
        if key not in self._known:
            self._known[key] = self.costly(lost, kind)
        return self._known[key]

    def _hold(self, targets: Sequence[Target], t: float, number: int = 0, steps: int = 1) -> bool:
        """Do the targets hold at a strength? `number` of `steps` that may be tried."""
        lost = self.lost(t)
        met = [self.met(target, lost) for target in targets]
        if any(target.kind not in CHEAP for target in targets):
            self.progress(Counted("tried: " + "; ".join(map(str, met)), number, steps))
        return all(_is_safe(each) for each in met)

    def _least(self, targets: Sequence[Target], low: float, steps: int) -> float:
        """The least strength from `low` on at which the targets hold."""
        if self._hold(targets, low):
            return low
        high = 1.0
        if not self._hold(targets, high):
            lost = self.lost(high)
            missed = next(each for each in (self.met(target, lost) for target in targets) if not _is_safe(each))
            raise TargetError(
                f"{missed.target.text} cannot be met: with everything removed that may go "
                f"{format_quantity(missed.target.kind, missed.reached)} are left, "
                f"{format_quantity(missed.target.kind, missed.limit)} are allowed{self.frozen()}"
            )
        for number in range(steps):
            middle = (low + high) / 2
            if self.lost(middle) == self.lost(low):
                low = middle
            elif self._hold(targets, middle, number + 1, steps):
                high = middle
            else:
                low = middle
        return high

    def _confirmed(self, targets: Sequence[Target], t: float) -> float:
        """A strength from `t` on that meets the targets when it is measured once more: a lucky run does not count."""
        while True:
            self._known.clear()
            if self._hold(targets, t):
                return t
            if t >= 1:
                missed = self.met(targets[0], self.lost(t))
                raise TargetError(f"{missed}: measured again it was missed, with everything removed{self.frozen()}")
            t = min(1.0, t + 1 / 2**_COSTLY_STEPS)

    def _most(self, targets: Sequence[Target]) -> float:
        """The largest strength at which the targets hold; 0 always does."""
        low, high = 0.0, 1.0
        steps = _DAMAGE_STEPS if all(target.kind == "damage" for target in targets) else _COSTLY_STEPS
        for number in range(steps):
            middle = (low + high) / 2
            if self._hold(targets, middle, number + 1, steps):
                low = middle
            else:
                high = middle
        return low
