"""Criteria that look at what a layer reads."""

from __future__ import annotations

import numpy as np

from onnxprune.steps.sparsify.base import Scores, WeightScoring, weight_criterion
from onnxprune.steps.sparsify.inputs import input_covariances, input_squares
from onnxprune.steps.sparsify.surgeon import damped


@weight_criterion(
    "wanda",
    on_data=True,
    by_output=True,
    source="Sun et al. 2024, A Simple and Effective Pruning Approach for Large Language Models, equation 1",
)
def score_wanda(scoring: WeightScoring) -> dict[str, Scores]:
    """The size of a weight times the norm of the feature that it multiplies, compared within each output."""
    squares = input_squares(scoring.analysis, scoring.matrices, scoring.context)
    return scoring.spread(lambda each: np.abs(each.of(each.array())) * np.sqrt(squares[each.key])[:, :, None])


@weight_criterion(
    "obs",
    on_data=True,
    comparable=True,
    updates=True,
    source="Hassibi et al. 1993, Optimal Brain Surgeon, equation 5; Frantar & Alistarh 2023, SparseGPT, algorithm 1",
)
def score_obs(scoring: WeightScoring) -> dict[str, Scores]:
    """The error of a layer's output when a weight goes and the others make up for it: w^2 / [H^-1]_ff.

    H is the second moment of the layer's features; the error is relative to the variance of the output. These are the
    scores before any weight is removed, which share sparsity out over layers. Which weights go is decided in
    `surgeon.SurgeonFit`, layer after layer, while those that stay are updated.
    """
    covariances = input_covariances(scoring.analysis, scoring.matrices, scoring.context)

    def scores(each: object) -> Scores:
        matrix, covariance = each.of(each.array()), covariances[each.key]  # type: ignore[attr-defined]
        inverse = np.linalg.inv(damped(covariance))
        power = float(np.sum(matrix * np.matmul(covariance, matrix)))
        found: Scores = np.square(matrix) / np.diagonal(inverse, axis1=1, axis2=2)[:, :, None] / max(power, 1e-30)
        return found

    return scoring.spread(scores)
