"""Criteria on weights alone: the size of a unit's filter, or of everything that belongs to the unit.

`l1` and `l2` look at the filter that makes a unit, as their papers do; so do `entropy` and `information`. The others
look at all that would go with the unit: the filter, the columns that read it, its bias, its normalization's scale and
shift. Tensors differ in size and in the scale of their entries, so the aggregate is a mean over entries, not over
tensors: every parameter counts once. Running means and variances are not parameters. The two rank differently: at the
same cut of the networks in benchmarks/results/criteria.md, `group-l2` leaves 5.9 points more of accuracy than `l2`, so
it is the default.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.analysis.groups import Analysis, Group, Occurrence
from onnxprune.analysis.owned import sum_owned
from onnxprune.steps.prune.criteria.base import Scores, ScoringContext, criterion

_ONE_READ = "one read of the weights"
_TWO_READS = "two reads of the weights"
_BINS = 32


def _power_mean(
    group: Group, context: ScoringContext, power: int, places: Sequence[Occurrence] | None = None
) -> Scores:
    """The mean of |w|^power over all entries that belong to each unit (or those in `places`), shape [units]."""
    weights = context.weights
    places = weights.parameters(group) if places is None else places
    total = sum_owned(group, lambda tensor, axes: weights.axis_sums(tensor, axes, power), places)
    entries = sum_owned(group, weights.entries, places)
    return np.nan_to_num(total / np.maximum(entries, 1), posinf=np.finfo(np.float64).max)


def _filter_sum(group: Group, context: ScoringContext, power: int) -> Scores:
    """The sum of |w|^power over what makes each unit, see WeightReader.filters: shape [units]."""
    weights = context.weights
    total = sum_owned(group, lambda tensor, axes: weights.axis_sums(tensor, axes, power), weights.filters(group))
    return np.nan_to_num(total, posinf=np.finfo(np.float64).max)


@criterion(
    "l0",
    cost=_TWO_READS,
    source='Louizos et al. 2018, "Learning Sparse Neural Networks through L0 Regularization", section 2; '
    "the threshold as in Han et al. 2015, section 4",
)
def l0(group: Group, context: ScoringContext) -> Scores:
    """Share of a unit's weights that are not negligible.

    Negligible are those of at most a hundredth of their tensor's root mean square: scaling a tensor changes nothing.
    Units of a group own equally many entries, so the share ranks as the count does.
    """
    return _power_mean(group, context, 0)


@criterion("l1", cost=_ONE_READ, source='Li et al. 2017, "Pruning Filters for Efficient ConvNets", section 3.1')
def l1(group: Group, context: ScoringContext) -> Scores:
    """Sum of the absolute weights of a unit's filter: what makes the unit, without bias and normalization."""
    return _filter_sum(group, context, 1)


@criterion("l2", cost=_ONE_READ, source='He et al. 2018, "Soft Filter Pruning", equation 2 with p = 2')
def l2(group: Group, context: ScoringContext) -> Scores:
    """Root of the summed squares of the weights of a unit's filter, as `l1`."""
    return np.sqrt(_filter_sum(group, context, 2))


@criterion("group-l1", cost=_ONE_READ, source='Fang et al. 2023, "DepGraph", section 3.3')
def group_l1(group: Group, context: ScoringContext) -> Scores:
    """Mean absolute weight of all parameters that would go with a unit.

    What makes the unit, what reads it, its bias and its normalization.
    """
    return _power_mean(group, context, 1)


@criterion("group-l2", cost=_ONE_READ, source='Fang et al. 2023, "DepGraph", section 3.3')
def group_l2(group: Group, context: ScoringContext) -> Scores:
    """Root mean square of all parameters that would go with a unit."""
    return np.sqrt(_power_mean(group, context, 2))


@criterion(
    "lamp",
    cost=_ONE_READ,
    source='Lee et al. 2021, "Layer-adaptive Sparsity for the Magnitude-based Pruning", section on the LAMP score',
    comparable=True,
)
def lamp(group: Group, context: ScoringContext) -> Scores:
    """Squared weights of a unit over those of all units of its group that are at least as large.

    Within a group it ranks as l2. Between groups it says how much of what would be left goes, so a global ranking takes
    it as it is; the largest unit of every group has 1. Lee et al. score single weights, we score units. Where
    units are equal, Lee et al. let the order of sorting decide; here each is rated against all of them, so that equal
    units have equal scores (four of them a quarter each, where nothing is larger).
    """
    squares = _power_mean(group, context, 2)
    squares /= squares.max() or 1.0
    ascending = np.sort(squares)
    at_least = np.cumsum(ascending[::-1])[::-1][np.searchsorted(ascending, squares)]
    return squares / np.where(at_least > 0, at_least, 1.0)


@criterion(
    "bn-scale",
    cost="one read of the normalizations; of all weights where a group has none",
    source='Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming", section 3',
    comparable=True,
)
def bn_scale(group: Group, context: ScoringContext) -> Scores:
    """Mean absolute scale (gamma) of the normalizations of a unit.

    The scales of batch, layer, group, instance and root-mean-square normalizations all count; as in Liu et al., a
    global ranking takes them as they are. A group without any (exporters fold them into convolutions) has its l2 scores
    instead, brought to the same scale: their mean is the mean scale of all groups, 1 where no group has any.
    """
    scales = _scales(context.analysis)
    mine = [place for place in group.occurrences if (place.tensor, place.axis) in scales]
    if mine:
        return _power_mean(group, context, 1, mine)
    size = l2(group, context)
    size /= size.max() or 1.0
    found = [_power_mean(other, context, 1, [place]) for other, place in scales.values()]
    mean = float(np.concatenate(found).mean()) if found else 1.0
    return np.asarray(size * (mean / (float(size.mean()) or 1.0)))


def _scales(analysis: Analysis) -> dict[tuple[str, int], tuple[Group, Occurrence]]:
    """Where groups occur in the scale of a normalization, by tensor and axis."""
    dims = {id(dim) for tag, dim, _ in analysis.findings.tags if tag == "scale"}
    return {
        (place.tensor, place.axis): (group, place)
        for group in analysis.groups
        for place in group.occurrences
        if id(analysis.dims[place.tensor][place.axis]) in dims
    }


@criterion(
    "entropy",
    cost=_TWO_READS,
    source='He and Xiao 2023, "Structured Pruning for Deep Convolutional Neural Networks: A Survey", section on '
    "information entropy",
)
def entropy(group: Group, context: ScoringContext) -> Scores:
    """Highest possible entropy minus that of a unit's filter weights: unpredictable filters go, predictable ones stay.

    The opposite of `information`, with the same histogram; in [0, log 32].
    """
    return np.asarray(np.log(_BINS) - information(group, context))


@criterion(
    "information",
    cost=_TWO_READS,
    source='Tang et al. 2023, "Filter Pruning based on Information Capacity and Independence", section on capacity',
)
def information(group: Group, context: ScoringContext) -> Scores:
    """Entropy of the distribution of a unit's filter weights, in nats: a filter of little information is redundant.

    `entropy` is the opposite view. The histogram has 32 bins over the range of each weight tensor, the same for all
    units, so that a filter with weights close to each other has little entropy. Where several weights make a unit,
    their histograms are added.
    """
    counts = np.zeros((group.units, _BINS))
    offsets = _BINS * np.arange(group.units)[:, None]
    for place in context.weights.filters(group):
        ranges = [(block.min(), block.max()) for block in context.weights.unit_blocks(place, group.atom)]
        low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
        for block in context.weights.unit_blocks(place, group.atom):
            bins = np.minimum((block - low) * (_BINS / ((high - low) or 1.0)), _BINS - 1).astype(np.int64)
            counts += np.bincount((bins + offsets).ravel(), minlength=counts.size).reshape(counts.shape)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    nats = share * np.log(np.where(share > 0, share, 1.0))
    return np.asarray(np.abs(nats.sum(axis=1)))
