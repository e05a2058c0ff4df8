"""Teaches onnxprune a criterion, peak: a unit matters as much as the largest of its slices."""

from __future__ import annotations

import numpy as np

from onnxprune.analysis.groups import Group
from onnxprune.dims import project
from onnxprune.steps.prune.criteria.base import Scores, ScoringContext, criterion


@criterion("peak", cost="one read of the weights", source="an example, see docs/plugins.md")
def peak(group: Group, context: ScoringContext) -> Scores:
    """The largest sum of absolute weights among the slices of a unit."""
    largest = np.zeros(group.units)
    for place in group.occurrences:
        if context.weights.is_parameter(place.tensor):
            sums = context.weights.axis_sums(place.tensor, (place.axis,), 1)
            largest = np.maximum(largest, project(place.dim, sums)[group.atom])
    return largest
