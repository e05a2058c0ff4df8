"""Criteria on weights alone: the size of everything that belongs to a unit.

A unit owns a slice of every weight that its group occurs in: the filter that produces it, the columns that read it, its
bias, its normalization scale and shift. All slices count. Tensors differ in size and in the scale of their entries, so
the aggregate is a mean over entries, not over tensors: every parameter that would go counts once.
"""

from __future__ import annotations

import numpy as np

from onnxprune.coupling import Group
from onnxprune.criteria.base import Context, Scores, criterion
from onnxprune.dims import project

_ONE_READ = "one read of the weights"


def _power_mean(group: Group, context: Context, power: int) -> Scores:
    """The mean of |w|^power over all entries that belong to each unit, shape [units]."""
    total, entries = np.zeros(group.units), np.zeros(group.units)
    for occurrence in group.occurrences:
        if not context.weights.is_weight(occurrence.tensor):
            continue
        sums = context.weights.axis_sums(occurrence.tensor, occurrence.axis, power)
        size = context.analysis.model.graph.initializers[occurrence.tensor].const_value.size  # type: ignore[union-attr]
        total += project(occurrence.dim, sums)[group.atom]
        entries += project(occurrence.dim, np.full(sums.shape, size / max(1, sums.size)))[group.atom]
    return np.nan_to_num(total / np.maximum(entries, 1), posinf=np.finfo(np.float64).max)


@criterion("l1", cost=_ONE_READ, source='Li et al. 2017, "Pruning Filters for Efficient ConvNets", section 3.1')
def l1(group: Group, context: Context) -> Scores:
    """Mean absolute weight of a unit.

    Li et al. rank filters by sum |w|; units of a group own equally many entries, so the mean ranks the same.
    """
    return _power_mean(group, context, 1)


@criterion("l2", cost=_ONE_READ, source='He et al. 2018, "Soft Filter Pruning", equation 2 with p = 2')
def l2(group: Group, context: Context) -> Scores:
    """Root mean square weight of a unit."""
    return np.sqrt(_power_mean(group, context, 2))
