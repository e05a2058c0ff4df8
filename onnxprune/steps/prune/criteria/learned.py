"""Scores that a training has learned for units: the size of a gate, the certainty of a mask."""

from __future__ import annotations

from onnxprune.analysis.groups import Group
from onnxprune.steps.prune.criteria.base import Scores, ScoringContext, by_size, criterion


@criterion(
    "learned",
    cost="nothing; the training before it learns the scores",
    source="the training method that learned them, see: onnxprune list training-methods",
    comparable=True,
)
def learned(group: Group, context: ScoringContext) -> Scores:
    """Scores of the training method before it: gates, masks, attention; by size where none was learned."""
    found = context.analysis.learned.get(group.atom)
    return by_size(group, context) if found is None else found
