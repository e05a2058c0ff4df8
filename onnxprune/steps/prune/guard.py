"""A few cuts that meet the same targets, tried on samples that nothing was fitted to: the least harmful is taken.

Predictions of damage come from scores, scaled by a trial of each group alone, see `trials`; what errors do to the
outputs together shows only when a model is run. So the cut that is predicted to be best is made and recovered, and so
are

- the one that scores alone predict to be best;
- the first with linear streams along their principal axes, and with layers split into two thinner ones, see `split`,
  as long as that helps;
- the best so far with one group losing half as much, the others so much more that the targets hold: group after group,
  those first whose share of the predicted damage is largest, until that has not helped twice.

Where the first leaves hardly an error, it is taken without another try.

Scores, directions and fits are of two thirds of the samples that may be fitted to, or more, and the tries are measured
on the others; samples that are kept apart to report on take no part. The number of tries is bounded, not their time, so
the same options give the same file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from onnxprune.analysis import cost
from onnxprune.analysis.groups import Group
from onnxprune.analysis.select import select_groups
from onnxprune.data.split import hold_out
from onnxprune.errors import TargetError
from onnxprune.model.file import estimated_bytes, file_bytes
from onnxprune.model.signature import ports_of
from onnxprune.runtime.session import Session
from onnxprune.steps.base import Context
from onnxprune.steps.prune.decide import Decision, decide
from onnxprune.steps.prune.harm import harm_of
from onnxprune.steps.prune.options import PruneOptions
from onnxprune.steps.prune.planner import planner
from onnxprune.steps.prune.score import score_units
from onnxprune.steps.prune.shipped import Shipped
from onnxprune.steps.prune.split import Spectra, rotate_state
from onnxprune.steps.prune.targets import CHEAP, Target
from onnxprune.steps.prune.trials import measure_trials
from onnxprune.steps.recover.step import Recover
from onnxprune.steps.state import State
from onnxprune.support.progress import Progress, parts, within

# Shares of a layer's variance that splitting it may leave out, as shares of what the option allows, ascending.
_SHARES = (0.03, 0.1, 0.3, 1.0)
_ALONE = "units shared out by scores alone"
_ROTATED = "linear streams along principal axes"
# Groups that get units back, tries of those that may fail, and samples that the tries see.
_GROUPS = 4
_MISSES = 2
_SAMPLES = 384
# Tries there mostly are, for the bar of progress.
_USUAL = 5
# A cut that does so little harm (27 dB) needs no other beside it: each try costs a recovery.
_LITTLE = 0.002
# A cut has to do so much less harm than the best before it: two that differ by less differ by chance.
_LESS = 0.85
# Splitting layers has to, for it makes two nodes of one: what it saves in arithmetic it may take in time.
_LESS_SPLIT = 0.5


@dataclass(frozen=True)
class Try:
    """A cut that was made and measured.

    Attributes:
        state: what was cut: the original, or the same with layers split.
        decision: which units go.
        harm: the share of the outputs' variance that comes out wrong after recovery, of the worst output.
        said: how it differs from the plain cut, in words.
        limits: what groups may lose at most in it.
        trials: the harm that a cut of each group alone does, see `trials.measure_trials`.
    """

    state: State
    decision: Decision
    harm: float
    said: str = ""
    limits: tuple[tuple[str, int], ...] = ()
    trials: Mapping[str, tuple[int, float]] = field(default_factory=dict)


def may_guard(state: State, options: PruneOptions, context: Context) -> bool:
    """Is there something to try: samples, a recovery, one round, and targets that cuts can be computed for?"""
    recover = _recovery(context)
    return (
        bool(options.targets)
        and all(target.kind in CHEAP for target in options.targets)
        and context.data is not None
        and context.loop.rounds == 1
        and not state.left
        and recover is not None
        and recover.compensates(data=True)
    )


def best_of_tries(state: State, options: PruneOptions, context: Context) -> tuple[State, Decision, tuple[str, ...]]:
    """The state to cut, which units go, and notes on what was tried.

    Raises TargetError where no try meets the targets.
    """
    tries = _Tries(state, options, context)
    found = list(tries.starts())
    if not found:
        groups = select_groups(state.original, options.only, options.skip)
        return state, decide(state, groups, options, context), ()
    plain = next((each for each in found if not each.said), None)
    best = _least_harmful(found)
    if not options.no_guard and best.harm >= _LITTLE:
        best = tries.given_back(best)
    notes = []
    if best.said and plain is not None:
        notes.append(f"{best.said}: on {tries.samples} samples for trying, error {plain.harm:.4f} -> {best.harm:.4f}")
    elif best.said:
        notes.append(best.said)
    groups = select_groups(best.state.original, options.only, options.skip)  # now scored on all samples
    return best.state, _again(best, groups, options, context), tuple(notes)


def _again(best: Try, groups: Sequence[Group], options: PruneOptions, context: Context) -> Decision:
    """The decision of a try, now that units are scored on all samples: as many of every group go, maybe others."""
    return decide(best.state, groups, options, context, limits=best.decision.outcome.lost, trials=best.trials)


def _least_harmful(found: Sequence[Try]) -> Try:
    """A cut of the model as it is, if no other does clearly less harm; split layers have more nodes to run."""
    alike = [each for each in found if each.said in ("", _ALONE)]  # the same layers, shared out otherwise
    best = min(alike or found, key=lambda each: each.harm)
    for made, less in ((False, _LESS), (True, _LESS_SPLIT)):
        tried = [each for each in found if bool(each.state.ranks) is made]
        least = min(tried, key=lambda each: each.harm, default=best)
        best = least if least.harm < less * best.harm else best
    return best


class _Tries:
    """Makes cuts, recovers them on some of the samples and measures them on others."""

    def __init__(self, state: State, options: PruneOptions, context: Context) -> None:
        assert context.data is not None
        self._state, self._options, self._context = state, options, context
        apart = hold_out(context.data, ports_of(state.original.model), most=_SAMPLES // 3)
        self.samples = apart.samples
        self._measured = apart.measuring
        self._fitting = replace(context, data=apart.fitting, apart=None, scores=None)
        self._watchers = parts(context.progress, [1.0] * (_USUAL + 1))[:-1]  # the last is for the cut that is taken
        self._made = 0
        self._original = Session(state.source, context.execution, optimized=True)

    def starts(self) -> Iterator[Try]:
        """The plain cut and those of models written in another form, until one does little harm or splitting harms."""
        if self._options.no_guard and not self._may_rewrite:
            return
        least = inf
        for state, said in self._forms():
            made = self._try(state, said)
            if made is None:
                continue
            yield made
            if made.harm < _LITTLE or (state.ranks and made.harm > least):
                return
            least = min(least, made.harm)
            if not said and made.trials and not self._options.no_guard:
                alone = self._try(state, _ALONE, (), made, {})
                if alone is not None:
                    yield alone
                    least = min(least, alone.harm)

    def _forms(self) -> Iterator[tuple[State, str]]:
        """The model as it is, with linear streams along their principal axes, and with layers split."""
        yield self._state, ""
        if not self._may_rewrite:
            return
        rotated = rotate_state(self._state, self._fitting)
        if rotated is not None:
            yield rotated, _ROTATED
        before = "" if rotated is None else f"{_ROTATED}; "
        for split in self._splits(rotated or self._state):
            yield split, before + _split_in_words(split)

    @property
    def _may_rewrite(self) -> bool:
        """May layers be written in another form? Who names groups wants no others."""
        return bool(self._options.low_rank) and not self._options.only and not self._options.skip

    def _splits(self, state: State) -> list[State]:
        """The least that meets the targets by splitting alone, and the next smaller one; else the two largest."""
        spectra = Spectra(state, self._fitting)
        found: list[State] = []
        for share in _SHARES:
            split = spectra.split(share * self._options.low_rank)
            if split is None or (found and split.ranks == found[-1].ranks):
                continue
            found.append(split)
            if all(self._meets(split, target) for target in self._options.targets):
                break
        return found[-2:]

    def _meets(self, split: State, target: Target) -> bool:
        """Is a target met without removing a unit?"""
        stored, before = cost.stored_cost(split.model), cost.before(self._state.original)
        macs = cost.macs_of(split.analysis) // cost.batch_size(split.analysis)
        shipped = Shipped.of(self._context) if target.kind == "size" else None
        size = estimated_bytes(split.model if shipped is None else shipped.model(split))
        whole = file_bytes(self._state.original.model)
        have = {"params": (stored.parameters, before.parameters), "macs": (macs, before.macs), "size": (size, whole)}
        left, of = have[target.kind]
        return left <= target.limit * (of if target.relative else 1)

    def given_back(self, best: Try) -> Try:
        """The best cut after some groups in turn were made to lose half as much, until that has not helped twice."""
        misses = 0
        for group in self._worst(best):
            lost = best.decision.outcome.lost[group.id]
            limits = (*best.limits, (group.id, lost // 2))
            said = "; ".join([*([best.said] if best.said else []), f"{group.id} gets {lost - lost // 2} units back"])
            made = self._try(best.state, said, limits, best, best.trials)
            if made is None or made.harm >= _LESS * best.harm:
                misses += 1
                if misses == _MISSES:  # each try costs a recovery, and other groups promise less
                    break
            else:
                best = made
        return best

    def _worst(self, best: Try) -> list[Group]:
        """The groups that lose units, those first whose removed scores are the largest share of all."""
        lost, scores = best.decision.outcome.lost, best.decision.scores
        found = [group for group in self._groups(best.state) if lost.get(group.id, 0) > 1]
        if len(self._groups(best.state)) < 2:
            return []

        def share(group: Group) -> float:
            ascending = sorted(scores[group.id])
            return float(sum(ascending[: lost[group.id]]))

        return sorted(found, key=share, reverse=True)[:_GROUPS]

    def _groups(self, state: State) -> Sequence[Group]:
        return select_groups(state.original, self._options.only, self._options.skip)

    def _try(
        self,
        state: State,
        said: str,
        limits: tuple[tuple[str, int], ...] = (),
        before: Try | None = None,
        trials: Mapping[str, tuple[int, float]] | None = None,
    ) -> Try | None:
        """A cut, recovered and measured; None where no cut meets the targets.

        `before`: another one of the state, whose scores are taken over; `trials` are made where nobody has any.
        """
        fitting = replace(self._fitting, progress=self._watcher())
        groups = self._groups(state)
        scored = None if before is None else before.decision.scored
        if scored is None:
            scored = score_units(fitting, state.analysis, groups, self._options.scored_by(data=True))
        if trials is None:
            comparable = self._options.scored_by(data=True).comparable
            plans = planner(state.original, groups, scored.scores, self._options, comparable=comparable)
            trials = measure_trials(state, plans.problem, fitting)
        try:
            decision = decide(state, groups, self._options, fitting, limits=dict(limits), scored=scored, trials=trials)
        except TargetError:
            if not said:
                raise
            return None
        recover = _recovery(self._context)
        assert recover is not None
        made = recover(state.cut(decision.left), fitting)
        harm = harm_of(self._original, made.model, self._measured, self._context.execution)
        return Try(state, decision, harm, said, limits, trials)

    def _watcher(self) -> Progress:
        """The part of the progress that the next try takes."""
        part = self._watchers[min(self._made, _USUAL - 1)]
        self._made += 1
        before = f"trying cut {self._made}"
        return lambda said: part(within(before, said))


def _recovery(context: Context) -> Recover | None:
    return next((each for each in context.following if isinstance(each, Recover)), None)


def _split_in_words(state: State) -> str:
    ranks = [f"{name} through {units} units" for name, units in list(state.ranks.items())[:3]]
    more = f" and {len(state.ranks) - 3} more" if len(state.ranks) > 3 else ""
    return f"split in two: {', '.join(ranks)}{more}"
