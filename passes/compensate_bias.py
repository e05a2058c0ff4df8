"""Put what removed units gave on average into the biases of what read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxprune.layers import Array
from onnxprune.passes.base import PassResult
from onnxprune.recovery.moments import Matrix
from onnxprune.recovery.pairing import Pairing
from onnxprune.recovery.walk import Evidence, LayerError, Progress, walk


@dataclass(frozen=True)
class CompensateBias:
    """Shift the outputs of every layer of a pruned model to the means that they have in the original.

    Before:  x' ── Conv(w sliced) ── y'              mean y' is short of what the removed channels of x added on average
    After:   x' ── Conv(w sliced, b) ── y' + b       b = mean y - mean y', a mean over all places, padded borders too

    A bias is created where there is none: in the node, in a constant Add or BatchNormalization behind it, or in a new
    Add. The means come from the pruned prefix with its biases already put right. Molchanov et al. 2017, "Pruning
    Convolutional Neural Networks", do without; An et al. 2024, "Fluctuation-based Adaptive Structured Pruning" (FLAP),
    compensate the output of one layer alone. `errors` tells how far each layer is off, once it has run.
    """

    pairing: Pairing
    feeds: Iterable[dict[str, Array]]
    seed: int = 0
    providers: Sequence[str] = ("CPUExecutionProvider",)
    progress: Progress = lambda _: None
    errors: list[LayerError] = field(default_factory=list)

    def __call__(self, model: ir.Model) -> PassResult:
        """Apply in place. Raises ModelError where a model cannot be run."""
        if model is not self.pairing.pruned.model:
            raise ValueError("the model is not the pruned one of the pairing")
        self.errors[:] = walk(
            self.pairing, self.feeds, mend, seed=self.seed, providers=self.providers, progress=self.progress
        )
        return PassResult(model, bool(self.errors))


def mend(evidence: Evidence) -> tuple[Matrix, Matrix] | None:
    """The same matrix, with the bias that makes the means agree."""
    bias = evidence.everything.best_bias(evidence.matrix)
    return (evidence.matrix, bias) if np.isfinite(bias).all() else None
