"""Criteria on how alike the filters of a group are: what makes one unit beside what makes the others.

A unit's filter is the vector of all entries of the weights that make it (see WeightReader.filters), as they lie in the
file. All that is asked of the vectors follows from their inner products, which are summed up block by block, so that
memory is the square of the units, not the size of the weights.
"""

from __future__ import annotations

import numpy as np

from onnxprune.analysis.groups import Group
from onnxprune.steps.prune.criteria.base import Scores, ScoringContext, criterion, one_by_one

_COST = "one read of the weights, units squared times entries"


def gram(group: Group, context: ScoringContext) -> Scores:
    """Inner products of the filters of all units: float64, shape [units, units]."""
    products = np.zeros((group.units, group.units))
    for place in context.weights.filters(group):
        for block in context.weights.unit_blocks(place, group.atom):
            products += block @ block.T
    return products


@criterion(
    "geometric-median",
    cost=_COST,
    source='He et al. 2019, "Filter Pruning via Geometric Median", section on FPGM',
)
def geometric_median(group: Group, context: ScoringContext) -> Scores:
    """Mean distance of a unit's filter to those of all other units (FPGM).

    The filter with the least lies next to the geometric median, so the others can replace it best. As published,
    every filter is measured against the whole group, so two equal ones close to the median go both; `cosine` keeps one.
    """
    products = gram(group, context)
    squares = np.diag(products)
    distances = squares[:, None] + squares[None, :] - 2 * products
    np.fill_diagonal(distances, 0)
    total: Scores = np.sqrt(np.maximum(distances, 0)).sum(axis=1)
    return total / max(1, group.units - 1)


@criterion(
    "cosine",
    cost=_COST,
    source='Ayinde and Zurada 2018, "Building Efficient ConvNets Using Redundant Feature Pruning", section on '
    "clustering",
)
def cosine(group: Group, context: ScoringContext) -> Scores:
    """One minus the cosine between a unit's filter and the most similar one that stays.

    Units are taken out one by one: of the two most similar ones the smaller goes, and the other is from then on
    compared with those that are left. So of each similar set all but one score low. In [0, 2]: 0 for a copy (or a
    filter of zeros), 1 for filters at right angles; opposite filters are not redundant, since activations tell them
    apart.
    """
    products = gram(group, context)
    norms = np.sqrt(np.diag(products))
    scores = np.zeros(group.units)
    alive = np.flatnonzero(norms > norms.max(initial=0.0) * np.finfo(np.float64).eps)
    norms, products = norms[alive], products[np.ix_(alive, alive)]
    similar = np.clip(products / np.outer(norms, norms), -1, 1)
    scores[alive] = 1 - one_by_one(similar, norms)
    return scores
