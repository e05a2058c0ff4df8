"""The step `reinitialize`: fresh weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxprune.steps.base import Context, Step, step
from onnxprune.support.extras import check_torch

if TYPE_CHECKING:
    from onnxprune.steps.state import State


@step("reinitialize")
@dataclass(frozen=True)
class Reinitialize(Step):
    """Draw all weights afresh from the seed, each layer's by the rule that fits it.

    He et al. 2015 in front of rectifiers, Glorot and Bengio 2010 elsewhere, orthogonal in recurrent layers, ones and
    zeros in normalizations. Weights that have to be zero stay zero.
    """

    def needs(self, context: Context) -> None:  # noqa: ARG002
        """Raises MissingExtraError where there is no torch."""
        check_torch()

    def __call__(self, state: State, context: Context) -> State:
        """The same units with fresh weights."""
        from onnxprune.analysis.copy import copy_analysis
        from onnxprune.steps.train.reinitialize import reinitialize

        context.progress("drawing weights")
        analysis = copy_analysis(state.analysis)
        written = reinitialize(analysis.model, context.seed, state.zeros)
        record = self.record({"changed": len(written.changed)})
        return replace(state.with_weights(analysis), recovered=None).noted(record)
