"""Least squares for every layer of a pruned model: what is left of it learns to do what all of it did."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.steps.recover.base import recovery
from onnxprune.steps.recover.evidence import Evidence, LayerFit
from onnxprune.steps.recover.layerwise import LayerwiseRecovery
from onnxprune.steps.recover.least_squares import Matrix, best_ridge


@recovery("reconstruct", compensates=True)
@dataclass(frozen=True)
class Reconstruct(LayerwiseRecovery):
    """Fit weights and bias of every layer to the original's outputs, in topological order.

    Before:  x' ── Conv(w sliced, b) ── y'      y' is short of what the removed channels of x added
    After:   x' ── Conv(w new, b new) ── y      min |rows(x') w + b - y|^2 + ridge |w - w sliced|^2

    x' comes from the pruned prefix as fitted so far, y from the original. The ridge has the least error on held-out
    samples, layer by layer; in front of a Relu, negative targets are set free in `rounds` more fits, and in front of a
    maximum of branches those that are not the largest, see `floors`. He et al. 2017,
    "Channel Pruning for Accelerating Very Deep Neural Networks", equation 1 (the reconstruction of the weights) and
    section 3.2 (residual targets). A weight that several layers share is fitted once, for all of them. Where there is
    no form to solve for (packed bits, weights that are chosen at run time), a note names what was left. Of a body that
    runs again and again, a fit is kept if it holds on what the steps before then give. `errors` tells how far each
    layer is off, once it has run; on other data or targets a second run would fit again.
    """

    rounds: int = 2

    def fit(self) -> LayerFit:
        """What is done to each layer."""
        return BestFit()


class BestFit:
    """The best affine layer. Its ridge is searched for in the first round; later ones change a few targets only."""

    def __init__(self) -> None:
        self._ridges: dict[str, float | None] = {}

    def __call__(self, evidence: Evidence) -> tuple[Matrix, Matrix] | None:
        """Matrix and bias; None where they do not come out finite."""
        layer, everything = evidence.layer.name, evidence.everything
        if layer not in self._ridges:
            self._ridges[layer] = best_ridge(evidence.train, evidence.held_out, evidence.matrix)
        ridge = self._ridges[layer]
        matrix = evidence.matrix if ridge is None else everything.solve(evidence.matrix, ridge)
        bias = everything.best_bias(matrix)
        return (matrix, bias) if np.isfinite(matrix).all() and np.isfinite(bias).all() else None
