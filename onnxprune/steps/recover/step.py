"""The step `recover`: win the accuracy back without training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxprune.steps.base import Context, Step, step
from onnxprune.support.options import option

if TYPE_CHECKING:
    from onnxprune.model.signature import Port
    from onnxprune.steps.state import State

NONE = "none"
BEST = "reconstruct"
ON_MADE_UP = "recovered on made-up inputs: with --data, a few hundred real samples, it does much better"


def _names() -> list[str]:
    from onnxprune.steps.recover.base import METHODS

    return [*METHODS, NONE]


@step("recover")
@dataclass(frozen=True)
class Recover(Step):
    """Fit the layers that are left to what the original does, without training.

    Where units were removed, weights and biases of the layers change so that each gives what it gave in the original.
    """

    method: str | None = option(
        None,
        "Win the accuracy back without training, see: onnxprune list recovery; reconstruct by default, without data "
        "on made-up inputs.",
        choices=_names,
        metavar="METHOD",
        flag="recover",
        called="recovery",
    )

    def chosen(self, *, data: bool) -> str:
        """The method, with or without data at hand."""
        return self.method or (BEST if data else NONE)

    @property
    def on_samples(self) -> bool:
        """Does it fit to samples, so that inputs are to be made up where there are none?"""
        from onnxprune.steps.recover.base import METHODS

        return self.method is None or (self.method != NONE and METHODS[self.method].on_data)

    @property
    def effort(self) -> float:
        """A pass over the samples for every layer."""
        return 8.0

    def compensates(self, *, data: bool) -> bool:
        """Will it change weights to make up for those that were removed?"""
        from onnxprune.steps.recover.base import METHODS

        method = self.chosen(data=data)
        return method != NONE and METHODS[method].compensates

    def __call__(self, state: State, context: Context) -> State:
        """The same units with weights that were fitted; a state that nothing was removed from stays as it is."""
        from onnxprune.analysis.copy import copy_analysis
        from onnxprune.steps.recover.base import METHODS
        from onnxprune.steps.recover.methods import recover_layers

        method = self.chosen(data=context.samples is not None)
        if method == NONE or not state.plan().removed_units or state.recovered == self:
            return state
        pruned = copy_analysis(state.analysis)
        found = recover_layers(
            state.original,
            pruned,
            state.left,
            method,
            context.samples,
            seed=context.seed,
            providers=context.execution,
            progress=context.progress,
        )
        pruned.remove_dead()
        numbers = {"method": found.method, "errors": found.errors}
        notes = (*found.notes, *([ON_MADE_UP] if context.data is None and METHODS[method].on_data else []))
        return replace(state.with_weights(pruned), recovered=self).noted(self.record(numbers, notes))


def keep_apart(context: Context, recovery: Recover | None, ports: Sequence[Port]) -> Context:
    """The same, with every third sample kept for measurements where recovery is fitted to the others."""
    from onnxprune.data.split import hold_out
    from onnxprune.steps.recover.base import METHODS

    method = NONE if recovery is None else recovery.chosen(data=context.data is not None)
    if context.data is None or context.apart is not None or method == NONE or not METHODS[method].on_data:
        return context
    apart = hold_out(context.data, ports)
    return replace(context, data=apart.fitting, apart=apart)
