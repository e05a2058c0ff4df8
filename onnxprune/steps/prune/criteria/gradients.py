"""Criteria on gradients: by how much the loss changes, in a Taylor expansion, when a unit goes.

Some look at units, through the derivative of each sample's loss by a gate on all that reads the unit; reads inside an
operator (the recurrence of an LSTM, fused attention) have no gate. The others add up what the weights of a unit
contribute, all that belong to it: what makes it, what reads it, its bias, its normalization.

Without labels they are drawn from the model's own predictions, one for each sample, with the seed: another seed gives
other scores. On 256 samples of the digits ResNet and transformer the ranks of two seeds correlate within a group by
.75 and .68 on average with `taylor1`, by .59 and .65 with `snip`: give labels where there are some, or take `fisher`,
whose probes are less noisy. The mean gradient is zero then, so nothing here rests on the mean gradient over all data.
A group that nothing reads is scored by the sizes of its weights, brought to the scale of the others, and a note says
so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxprune.analysis.groups import Group
from onnxprune.analysis.owned import sum_owned
from onnxprune.steps.prune.criteria.base import Scores, ScoringContext, by_size, criterion

if TYPE_CHECKING:
    from onnxprune.statistics.gradients import AxisSums

_ONE_PASS = "one pass over the data, forward and backward"


@criterion(
    "taylor1",
    needs=("gradients",),
    cost=_ONE_PASS,
    source='Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", equation 8, with gates; '
    "absolute values, averaged over samples, as in Molchanov et al. 2017",
    comparable=True,
)
def taylor1(group: Group, context: ScoringContext) -> Scores:
    """Mean over samples of the absolute change of the loss, to first order.

    |sum of activation * gradient| over everything that reads the unit. Molchanov et al. 2019 square the same quantity;
    `empirical-fisher` is half its mean square.
    """
    found = context.gradients.contributions(group)
    return by_size(group, context) if found is None else found.sizes / found.samples


@criterion(
    "taylor2",
    needs=("gradients", "hessian"),
    cost="two passes over the data, forward and backward",
    source='Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", section 3.1, with gates; '
    "absolute values, averaged over samples",
    comparable=True,
)
def taylor2(group: Group, context: ScoringContext) -> Scores:
    """Mean over samples of the absolute change of the loss, to second order.

    |h / 2 - d| with the derivative d of a sample's loss by the unit's gate and the second derivative h of the
    Gauss-Newton matrix, of the unit alone. h is estimated as for `fisher` and averaged over all samples before the
    absolute value is taken: that of a noisy number is too high.
    """
    found = context.gradients.changes(group)
    return by_size(group, context) if found is None else found.sizes / found.samples


@criterion(
    "taylor-weights",
    needs=("gradients",),
    cost=_ONE_PASS,
    source='Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", equation 8',
    comparable=True,
)
def taylor_weights(group: Group, context: ScoringContext) -> Scores:
    """Sum of (weight * gradient)^2 over the weights of a unit, the mean over batches.

    The gradient is that of a batch's mean loss, so the score depends on the batch size. Beside the gates of `taylor1`,
    30% of the units inside blocks gone, it leaves 97.9% where those leave 98.0 behind recovery, and as cut 89.9 where
    those leave 89.6 (the digits networks, three draws of 128 images; less on the transformer, more on the LSTM). Take
    `taylor1`, which does not depend on batches.
    """
    return _sum(group, context, context.gradients.squared_sensitivity())


@criterion(
    "taylor-group",
    needs=("gradients",),
    cost=_ONE_PASS,
    source='Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", section 3.2, as the square of '
    "the sum over all weights that go",
    comparable=True,
)
def taylor_group(group: Group, context: ScoringContext) -> Scores:
    """Squared sum of weight * gradient over the weights of a unit, the mean over batches.

    As `taylor-weights`, with the weights counted together: what they do to the loss may cancel. On the digits networks
    it leaves half a point less than both others behind recovery.
    """
    found = context.gradients.sums(group)
    return by_size(group, context) if found is None else found.squares / found.samples


@criterion(
    "fisher",
    needs=("gradients",),
    cost=_ONE_PASS,
    source='Theis et al. 2018, "Faster Gaze Prediction with Dense Networks and Fisher Pruning", section 2; coupled '
    "layers summed before squaring as in Liu et al. 2021, Group Fisher Pruning",
    comparable=True,
)
def fisher(group: Group, context: ScoringContext) -> Scores:
    """Half the mean squared derivative of a sample's loss by the unit's gate: the diagonal of the Fisher information.

    It is the true Fisher information, the expectation over the model's predictions, and never looks at labels;
    `empirical-fisher` does. It is estimated with one random probe for each sample: without bias, but not without
    noise. On 256 samples of ResNet-20 and of the digits ResNet and transformer the ranks of two seeds correlate within
    a group by .89, .94 and .85 on average, .68 at the least; over all groups by .91, .99 and .96.
    """
    found = context.gradients.probes(group)
    return by_size(group, context) if found is None else found.squares / (2 * found.samples)


@criterion(
    "empirical-fisher",
    needs=("gradients", "labels"),
    cost=_ONE_PASS,
    source='Theis et al. 2018, "Faster Gaze Prediction with Dense Networks and Fisher Pruning", section 2, equation 9',
    comparable=True,
)
def empirical_fisher(group: Group, context: ScoringContext) -> Scores:
    """Half the mean squared derivative of a sample's loss by the unit's gate, at the labels of the data.

    As Theis et al. compute it. It has no noise of its own, but is small where the model is right and sure.
    """
    found = context.gradients.contributions(group)
    return by_size(group, context) if found is None else found.squares / (2 * found.samples)


@criterion(
    "snip",
    needs=("gradients",),
    cost=_ONE_PASS,
    source='Lee et al. 2019, "SNIP: Single-shot Network Pruning Based on Connection Sensitivity", section 4',
    comparable=True,
)
def snip(group: Group, context: ScoringContext) -> Scores:
    """Sum of |weight * gradient| over the weights of a unit, the mean over batches.

    The published sensitivity of a connection before it is divided by the sum of all, added up over a unit.
    """
    return _sum(group, context, context.gradients.sensitivity())


@criterion(
    "grasp",
    needs=("gradients", "hessian"),
    cost="one pass over the data, forward and twice backward",
    source='Wang et al. 2020, "Picking Winning Tickets before Training by Preserving Gradient Flow", section 4',
    comparable=True,
)
def grasp(group: Group, context: ScoringContext) -> Scores:
    """Sum of weight * (Hessian * gradient) over the weights of a unit: how much of the gradient flow rests on it.

    The published score with its sign reversed, since that removes the highest. It may be negative. Meant for networks
    before training; after it the gradient that is preserved is small and its direction chance. The gradient is that of
    all weights, those included that nothing can be pruned of.
    """
    return _sum(group, context, context.gradients.gradient_flow())


@criterion(
    "synflow",
    cost="one forward and backward pass of one input of ones in double precision; needs torch, no data",
    source='Tanaka et al. 2020, "Pruning Neural Networks without any Data by Iteratively Conserving Synaptic Flow", '
    "section on the synaptic flow",
    comparable=True,
)
def synflow(group: Group, context: ScoringContext) -> Scores:
    """Sum over the weights of a unit of weight * gradient of the summed outputs, with absolute weights and inputs of 1.

    How much passes through the unit on all paths from input to output. Exact for networks of sums and ReLUs; what else
    there is is passed as it is, but for a softmax at the very end. What a layer normalization gives does not grow with
    what it gets, so next to nothing flows through transformers.
    """
    return _sum(group, context, context.gradients.synaptic_flow())


@criterion(
    "obd",
    needs=("gradients", "hessian"),
    cost=_ONE_PASS,
    source='Le Cun et al. 1989, "Optimal Brain Damage", section 2',
    comparable=True,
)
def obd(group: Group, context: ScoringContext) -> Scores:
    """Sum of h * weight^2 / 2 over the weights of a unit, with the diagonal h of the Hessian.

    As Le Cun et al. take it: off-diagonal entries are left out, also between the weights of one unit, and h is that of
    the Gauss-Newton matrix, so never negative (for ReLU networks they are the same). It is estimated with random probes
    as for `fisher`, whose gradients are summed over eight samples before they are squared: without bias, in about the
    time of one pass. On 256 samples of ResNet-20 and of the digits ResNet and transformer the ranks of two seeds
    correlate within a group by .92, .85 and .86 on average, .57 at the least; over all groups by .94 to .96. A model
    that takes one batch size only is probed batch by batch, which is noisier.
    """
    return _sum(group, context, context.gradients.curvature()) / 2


def _sum(group: Group, context: ScoringContext, sums: AxisSums) -> Scores:
    """Of a score per weight, over all weights that belong to a unit; their sizes where none can be differentiated."""
    places = [place for place in group.occurrences if (place.tensor, (place.axis,)) in sums]
    if not places:
        return by_size(group, context)
    return np.nan_to_num(sum_owned(group, lambda tensor, axes: sums[tensor, axes], places))
