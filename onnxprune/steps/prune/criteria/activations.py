"""Criteria on what units give on calibration data, seen where something sums over them: what their readers read.

A group that several nodes read has the mean of what it has at each. A group that is never read as an activation of its
own (the inside of a fused attention) is scored by the sizes of its weights, whatever the criterion.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnxprune.analysis.groups import Group
from onnxprune.analysis.layers import Layer, plain_matrix
from onnxprune.dims import atoms, project
from onnxprune.statistics.accumulators import Histogram, Ranks, Summary, axis_columns, layer_rows, pooled_by_sample
from onnxprune.statistics.sites import SitePlace
from onnxprune.steps.prune.criteria.base import Scores, ScoringContext, by_size, criterion

_ONE_PASS = "one pass over the data"
_BINS = 32


def _over_places(group: Group, context: ScoringContext, score: Callable[[SitePlace], Scores]) -> Scores:
    """The mean of what the places of a group give its units; the sizes of its weights where there is none."""
    places = context.activations.places(group)
    if not places:
        return by_size(group, context)
    mean: Scores = np.mean([score(place) for place in places], axis=0)
    return np.nan_to_num(mean)


def _per_unit(group: Group, context: ScoringContext, statistic: Callable[[Summary], Scores]) -> Scores:
    """A statistic of every entry, as the mean over the entries of a unit and over places."""

    def score(place: SitePlace) -> Scores:
        entries = statistic(context.activations.per_place("summary", lambda at: Summary(axis_columns(at)))[place])[0]
        return project(place.dim, entries)[group.atom] / project(place.dim, np.ones_like(entries))[group.atom]

    return _over_places(group, context, score)


@criterion(
    "activation-mean",
    needs=("activations",),
    cost=_ONE_PASS,
    source='Molchanov et al. 2017, "Pruning Convolutional Neural Networks for Resource Efficient Inference", '
    "section 2.2",
)
def activation_mean(group: Group, context: ScoringContext) -> Scores:
    """Mean absolute activation of a unit.

    Behind a ReLU that is the mean, as published; where activations can be negative, large negative ones count too.
    """
    return _per_unit(group, context, lambda summary: summary.mean_size)


@criterion(
    "activation-variance",
    needs=("activations",),
    cost=_ONE_PASS,
    source='Polyak and Wolf 2015, "Channel-Level Acceleration of Deep Face Representations", section on inbound '
    "pruning",
)
def activation_variance(group: Group, context: ScoringContext) -> Scores:
    """Variance of a unit's activations: what the biases of its readers cannot make up for.

    Where a unit has several entries (a channel that was flattened), it is the mean of their variances.
    """
    return _per_unit(group, context, lambda summary: summary.variance)


@criterion(
    "apoz",
    needs=("activations",),
    cost=_ONE_PASS,
    source='Hu et al. 2016, "Network Trimming", equation 1',
)
def apoz(group: Group, context: ScoringContext) -> Scores:
    """Share of a unit's activations that are not zero: one minus the average percentage of zeros.

    It tells units apart behind a ReLU and its like only; elsewhere all have 1.
    """
    return _per_unit(group, context, lambda summary: 1 - summary.zero_share)


@criterion(
    "activation-entropy",
    needs=("activations",),
    cost="two passes over the data",
    source='Luo and Wu 2017, "An Entropy-based Pruning Method for CNN Compression", section 3',
)
def activation_entropy(group: Group, context: ScoringContext) -> Scores:
    """Entropy, in nats, of a unit's mean activation per sample.

    The histogram has 32 bins over the range that the unit's means have on the data, so scale does not matter.
    """
    activations = context.activations
    means = activations.per_group("means", lambda each, place: Summary(pooled_by_sample(place, each.atom)))

    def histogram(each: Group, place: SitePlace) -> Histogram:
        found = means[each.id, place]
        return Histogram(pooled_by_sample(place, each.atom), found.minimum, found.maximum, _BINS)

    counts = activations.per_group("histograms of means", histogram)

    def score(place: SitePlace) -> Scores:
        found = counts[group.id, place].counts[0]
        share = found / np.maximum(found.sum(axis=1, keepdims=True), 1)
        return np.asarray(-np.sum(share * np.log(np.where(share > 0, share, 1.0)), axis=1) + 0.0)

    return _over_places(group, context, score)


@criterion(
    "rank",
    needs=("activations",),
    cost="one pass over the data, a singular value decomposition per sample and unit",
    source='Lin et al. 2020, "HRank", section 3',
)
def rank(group: Group, context: ScoringContext) -> Scores:
    """Mean matrix rank of a unit's feature maps.

    A channel's map is a matrix per sample, as published; so is a head's (tokens against entries). A neuron's values for
    a sequence of tokens are one row of a matrix per batch, which makes the score depend on the batch size; a neuron
    with a single value per sample has rank 1, or 0 where it is dead.
    """
    ranks = context.activations.per_group("ranks", lambda each, place: Ranks(place, each.atom))
    return _over_places(group, context, lambda place: ranks[group.id, place].mean)


@criterion(
    "wanda",
    needs=("activations",),
    cost=_ONE_PASS,
    source='Sun et al. 2024, "A Simple and Effective Pruning Approach for Large Language Models", equation 1',
)
def wanda(group: Group, context: ScoringContext) -> Scores:
    """Weights that read a unit, each times the norm of what it reads: sum of |W| * root mean square of X.

    The published score of a weight, added up over the affine layers that read the unit; a root mean square instead of
    a norm, so that the number of samples does not matter. Units that no affine layer reads (queries and keys) count as
    read with weights of 1.
    """
    return _read_weights(
        group,
        context,
        lambda matrix, seen: np.abs(matrix).sum(axis=2) * np.sqrt(seen.mean_square),
        lambda seen: np.sqrt(seen.mean_square),
    )


@criterion(
    "fluctuation",
    needs=("activations",),
    cost=_ONE_PASS,
    source='An et al. 2024, "Fluctuation-based Adaptive Structured Pruning for Large Language Models", section on the '
    "fluctuation metric",
)
def fluctuation(group: Group, context: ScoringContext) -> Scores:
    """Variance of what reads a unit sees, times the squared weights that it is read with (FLAP).

    Added up over the affine layers that read the unit: the output error that is left once biases have taken up the
    mean. Units that no affine layer reads count as read with weights of 1.
    """
    return _read_weights(
        group,
        context,
        lambda matrix, seen: np.square(matrix).sum(axis=2) * seen.variance,
        lambda seen: seen.variance,
    )


def _read_weights(
    group: Group,
    context: ScoringContext,
    score: Callable[[Scores, Summary], Scores],
    unweighted: Callable[[Summary], Scores],
) -> Scores:
    """Sum over the affine layers that read a group of a score per feature, from matrix and rows of each layer."""
    rows = context.activations.per_layer("rows", lambda layer: Summary(layer_rows(layer)))
    readers = [(layer, seen) for layer, seen in rows.values() if _reads(layer, group, context)]
    if not readers:
        return _per_unit(group, context, unweighted)
    total = np.zeros(group.units)
    for layer, seen in readers:
        matrix = plain_matrix(layer)
        dim = context.analysis.dims[layer.x][layer.form.axis]
        channels = layer.feature_channels(dim.size)
        features = np.broadcast_to(score(matrix, seen), channels.shape)
        entries: Scores = np.zeros(dim.size)
        np.add.at(entries, channels, features)
        total += project(dim, entries)[group.atom]
    return np.nan_to_num(total, posinf=np.finfo(np.float64).max)


def _reads(layer: Layer, group: Group, context: ScoringContext) -> bool:
    """Does it sum over the units? The products of a grouped convolution come and go with their channels."""
    dims, form = context.analysis.dims, layer.form
    comes_out = form.groups > 1 and group.atom in set(atoms(dims[layer.y][form.out_axis]))
    return group.atom in set(atoms(dims[layer.x][form.axis])) and not comes_out
