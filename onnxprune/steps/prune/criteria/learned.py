"""Scores that a training has learned for units: the size of a gate, the certainty of a mask."""

from __future__ import annotations

from onnxprune.analysis.groups import Group
from onnxprune.steps.prune.criteria.base import Scores, ScoringContext, by_size, criterion


@criterion(
    "learned",
    cost="nothing; the training before it learns the scores",
    source='that of the training method; gates are those of Louizos et al. 2018, "Learning Sparse Neural Networks '
    'through L0 Regularization", section 2.2',
    comparable=True,
)
def learned(group: Group, context: ScoringContext) -> Scores:
    """Scores of the training method before it: gates, masks, attention; by size where none was learned."""
    found = context.analysis.learned.get(group.atom)
    return by_size(group, context) if found is None else found
