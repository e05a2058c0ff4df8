"""The step `prune`: remove the weakest units."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from onnxprune.errors import NothingToPruneError, UsageError
from onnxprune.steps.base import Context, Step, step
from onnxprune.steps.prune.options import PruneOptions
from onnxprune.support.options import options_of

if TYPE_CHECKING:
    from onnxprune.analysis.groups import Group
    from onnxprune.steps.prune.decide import Decision
    from onnxprune.steps.state import State

# What may be said beside `lossless`, which leaves no other choice.
WITH_LOSSLESS = ("lossless", "only", "skip")


@step("prune")
@dataclass(frozen=True)
class Prune(PruneOptions, Step):
    """Remove the weakest units, whole and everywhere at once.

    In a loop every round goes a part of the way, see `Repeat`, and scores what the rounds before it have left.
    """

    def check(self) -> None:
        """Raises UsageError for options that do not go together."""
        super().check()
        if self.lossless:
            for name, each in options_of(type(self)).items():
                if name not in WITH_LOSSLESS and getattr(self, name) != each.default:
                    raise UsageError(
                        f"--{each.flag} has no effect with --lossless, which leaves no choice; drop one of them"
                    )

    @property
    def effort(self) -> float:
        """Statistics take long; for a target many cuts are tried, each with its recovery."""
        return 40.0 if self.targets else 10.0

    def needs(self, context: Context) -> None:
        """Raises UsageError where the criterion needs data that is not there."""
        from onnxprune.steps.prune.score import check_data

        if not self.lossless:
            check_data(self.scored_by(data=context.data is not None), context.data)

    def __call__(self, state: State, context: Context) -> State:
        """The model without the units that were chosen.

        Raises NothingToPruneError where there is nothing to choose from, TargetError where a target cannot be met.
        """
        from onnxprune.analysis.held import nothing_to_prune
        from onnxprune.analysis.select import select_groups
        from onnxprune.model.file import name_of
        from onnxprune.steps.prune.decide import decide
        from onnxprune.steps.prune.guard import best_of_tries, may_guard

        groups = select_groups(state.original, self.only, self.skip)
        if self.lossless:
            return self._without_loss(state, groups, context)
        if not groups:
            raise NothingToPruneError(nothing_to_prune(state.original, name_of(state.source)))
        notes: tuple[str, ...] = ()
        if may_guard(state, self, context) and not (self.no_guard and not self.low_rank):
            state, decision, notes = best_of_tries(state, self, context)
        else:
            decision = decide(state, groups, self, context)
        context.progress("removing")
        made = decision.made or state.cut(decision.left)
        later = made.records[len(state.records) :]
        last = context.loop.number == context.loop.rounds  # what a round on the way comes to is of no interest
        record = self.record(_numbers(decision), (*decision.outcome.notes, *notes) if last else ())
        return replace(made, records=(*state.records, record, *later))

    def _without_loss(self, state: State, groups: list[Group], context: Context) -> State:
        from onnxprune.analysis.constants import Constants
        from onnxprune.steps.prune.lossless import find_unneeded

        context.progress("looking for constants")
        now = state.now(groups)
        needed, notes = find_unneeded(Constants(state.analysis), list(now.values()))
        left = {}
        for group in groups:
            if group.id in now and now[group.id].id in needed:
                mask = state.mask(group).copy()
                mask[mask] = needed[now[group.id].id]
                left[group.atom] = mask
        context.progress("removing")
        return state.cut(left, fold=True).noted(self.record({"removed": _removed(left.values())}, notes))


def _removed(masks: Any) -> int:
    return sum(int((~mask).sum()) for mask in masks)


def _numbers(decision: Decision) -> dict[str, Any]:
    """The decision, for the record."""
    met = [{"target": each.target.text, "limit": each.limit, "reached": each.reached} for each in decision.outcome.met]
    return {
        "removed": _removed(decision.left.values()),
        "strength": decision.outcome.strength,
        "targets": met,
        "scores": decision.scores,
        "earlier": decision.removed,
    }
