"""Put what removed units gave on average into the biases of what read them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.steps.recover.base import recovery
from onnxprune.steps.recover.evidence import Evidence, LayerFit
from onnxprune.steps.recover.layerwise import LayerwiseRecovery
from onnxprune.steps.recover.least_squares import Matrix


@recovery("bias")
@dataclass(frozen=True)
class CompensateBias(LayerwiseRecovery):
    """Shift the outputs of every layer of a pruned model to the means that they have in the original.

    Before:  x' ── Conv(w sliced) ── y'              mean y' is short of what the removed channels of x added on average
    After:   x' ── Conv(w sliced, b) ── y' + b       b = mean y - mean y', a mean over all places, padded borders too

    A bias is created where there is none: in the node, in a constant Add or BatchNormalization behind it, or in a new
    Add. The means come from the pruned prefix with its biases already put right. Molchanov et al. 2017, "Pruning
    Convolutional Neural Networks", do without; An et al. 2024, "Fluctuation-based Adaptive Structured Pruning" (FLAP),
    compensate the output of one layer alone. `errors` tells how far each layer is off, once it has run.
    """

    def fit(self) -> LayerFit:
        """What is done to each layer."""
        return shifted


def shifted(evidence: Evidence) -> tuple[Matrix, Matrix] | None:
    """The same matrix, with the bias that makes the means agree."""
    bias = evidence.everything.best_bias(evidence.matrix)
    return (evidence.matrix, bias) if np.isfinite(bias).all() else None
