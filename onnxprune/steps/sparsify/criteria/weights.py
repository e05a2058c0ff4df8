"""Criteria that look at weights alone."""

from __future__ import annotations

import numpy as np

from onnxprune.steps.sparsify.base import Scores, WeightScoring, weight_criterion


@weight_criterion("magnitude", source="Han et al. 2015, Learning both Weights and Connections, section 3.1")
def score_magnitude(scoring: WeightScoring) -> dict[str, Scores]:
    """The size of a weight."""
    return {name: np.abs(array) for name, array in scoring.arrays().items()}


@weight_criterion(
    "lamp",
    comparable=True,
    source="Lee et al. 2021, Layer-adaptive sparsity for the Magnitude-based Pruning, equation 1",
)
def score_lamp(scoring: WeightScoring) -> dict[str, Scores]:
    """The square of a weight over the sum of the squares of all in its layer that are at least as large."""
    return {name: _lamp(array) for name, array in scoring.arrays().items()}


def _lamp(array: Scores) -> Scores:
    squares = np.square(array).ravel()
    order = np.argsort(-squares, kind="stable")
    scores = np.empty_like(squares)
    scores[order] = squares[order] / np.maximum(np.cumsum(squares[order]), 1e-300)
    return scores.reshape(array.shape)


@weight_criterion("random", comparable=False, source="the control that every other criterion has to beat")
def score_random(scoring: WeightScoring) -> dict[str, Scores]:
    """Numbers drawn from the seed; each weight has a stream of its own."""
    found = {}
    for index, name in enumerate(scoring.arrays()):
        shape = next(each.stored_shape for each in scoring.matrices if each.stored == name)
        found[name] = np.random.default_rng([scoring.context.seed, index]).random(shape)
    return found
