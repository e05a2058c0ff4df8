"""Criteria that take derivatives of a loss by single weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from onnxprune.steps.sparsify.base import Scores, WeightScoring, weight_criterion


def _scored(
    scoring: WeightScoring, slopes: Mapping[str, Scores], score: Callable[[Scores, Scores], Scores]
) -> dict[str, Scores]:
    """A score of each weight and what a loss says of it."""
    return {name: score(weight, slopes[name]) for name, weight in scoring.arrays().items()}


@weight_criterion(
    "snip",
    on_data=True,
    comparable=True,
    source="Lee et al. 2019, SNIP: Single-shot Network Pruning based on Connection Sensitivity, equation 6",
)
def score_snip(scoring: WeightScoring) -> dict[str, Scores]:
    """How much the loss changes with a gate on the weight: |w * dL/dw|, over the sum of all."""
    found = _scored(scoring, scoring.gradients.mean(), lambda weight, slope: np.abs(weight * slope))
    total = sum(float(each.sum()) for each in found.values())
    return {name: each / max(total, 1e-300) for name, each in found.items()}


@weight_criterion(
    "taylor",
    on_data=True,
    comparable=True,
    source="Molchanov et al. 2019, Importance Estimation for Neural Network Pruning, equation 8",
)
def score_taylor(scoring: WeightScoring) -> dict[str, Scores]:
    """Squared change of the loss to first order when the weight goes: (w * dL/dw)^2, the mean over batches."""
    return _scored(scoring, scoring.gradients.squares(), lambda weight, squares: np.square(weight) * squares)


@weight_criterion(
    "fisher",
    on_data=True,
    comparable=True,
    source="Theis et al. 2018, Faster gaze prediction with dense networks and Fisher pruning, equation 8, per weight",
)
def score_fisher(scoring: WeightScoring) -> dict[str, Scores]:
    """Rise of the loss to second order when the weight goes: w^2 / 2 times the diagonal of the empirical Fisher."""
    return _scored(scoring, scoring.gradients.fisher(), lambda weight, diagonal: np.square(weight) * diagonal / 2)


@weight_criterion(
    "obd",
    on_data=True,
    comparable=True,
    source="LeCun et al. 1989, Optimal Brain Damage, equation 5",
)
def score_obd(scoring: WeightScoring) -> dict[str, Scores]:
    """Saliency w^2 / 2 * h, h the diagonal of the Hessian in the form of Gauss and Newton."""
    return _scored(scoring, scoring.gradients.curvature(), lambda weight, diagonal: np.square(weight) * diagonal / 2)


@weight_criterion(
    "grasp",
    on_data=True,
    comparable=True,
    source="Wang et al. 2020, Picking Winning Tickets Before Training by Preserving Gradient Flow, equation 8",
)
def score_grasp(scoring: WeightScoring) -> dict[str, Scores]:
    """How much the squared norm of the gradient shrinks when the weight goes: w * (H g).

    The paper's score -w * (H g) is high where the removal raises gradient flow, and such weights go first.
    """
    return _scored(scoring, scoring.gradients.hessian_times_gradient(), lambda weight, flow: weight * flow)


@weight_criterion(
    "synflow",
    comparable=True,
    rounds=100,
    source="Tanaka et al. 2020, Pruning neural networks without any data by iteratively conserving synaptic flow, "
    "equation 3 and algorithm 1",
)
def score_synflow(scoring: WeightScoring) -> dict[str, Scores]:
    """How much of the flow of absolute weights from inputs of 1 to the outputs goes through the weight.

    Scored in 100 rounds, the share that is left falling by the same factor in each: in one shot whole layers may go.
    """
    return _scored(scoring, scoring.gradients.synaptic_flow(), lambda weight, flow: np.abs(weight) * np.abs(flow))
