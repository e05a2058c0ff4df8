"""Criteria on how alike the activations of a group's units are: of each set of similar units all but one can go.

A unit's pattern is everything it gives on the calibration data: all samples, positions and entries. Where several nodes
read a group, what it gives to each counts alike. A group that no data reaches has the sizes of its weights as scores.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnxprune.analysis.groups import Group
from onnxprune.statistics.accumulators import Covariance, units
from onnxprune.steps.prune.criteria.base import Scores, ScoringContext, by_size, criterion, one_by_one

_COST = "one pass over the data, units squared times values; memory of units squared per group"


@criterion(
    "activation-similarity",
    needs=("activations",),
    cost=_COST,
    source='Mariet and Sra 2016, "Diversity Networks", section 3, with the cosine for a kernel',
)
def activation_similarity(group: Group, context: ScoringContext) -> Scores:
    """One minus the cosine between a unit's activations and those of the most similar unit that stays.

    A unit that gives a multiple of another's activations is redundant: the weights that read it could be added to the
    other's. Of two similar units the one with smaller activations goes first. In [0, 2]; dead units have 0.
    """
    return _redundancy(group, context, lambda found: found.gram[0])


@criterion(
    "correlation",
    needs=("activations",),
    cost=_COST,
    source='Suau et al. 2020, "Filter Distillation for Network Compression", section 3',
)
def correlation(group: Group, context: ScoringContext) -> Scores:
    """One minus the correlation (Pearson) of a unit with the most correlated unit that stays.

    A shift does not matter: the biases of the readers could take it up. Negative correlation is no redundancy, the more
    negative the higher the score. Of two correlated units the one that varies less goes first. In [0, 2]; units that
    never change have 0.
    """
    return _redundancy(group, context, lambda found: found.covariance[0])


def _redundancy(group: Group, context: ScoringContext, products: Callable[[Covariance], Scores]) -> Scores:
    """1 - similarity at removal, from the products of all pairs of units; 0 for units without a square."""
    found = context.activations.per_group("covariances", lambda each, place: Covariance(units(place, each.atom)))
    places = context.activations.places(group)
    if not places:
        return by_size(group, context)
    total = np.zeros((group.units, group.units))
    for place in places:
        here = products(found[group.id, place])
        total += here / (np.trace(here) or 1.0)
    sizes = np.sqrt(np.maximum(np.diag(total), 0))
    scores = np.zeros(group.units)
    alive = np.flatnonzero(sizes > sizes.max(initial=0.0) * np.sqrt(np.finfo(np.float64).eps))
    similar = np.clip(total[np.ix_(alive, alive)] / np.outer(sizes[alive], sizes[alive]), -1, 1)
    scores[alive] = 1 - one_by_one(similar, sizes[alive])
    return scores
