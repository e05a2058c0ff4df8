"""Scores of all units of the chosen groups by one criterion, from the weights or from calibration data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnxprune.analysis.groups import Analysis, Group
from onnxprune.data.base import Data
from onnxprune.errors import UsageError
from onnxprune.statistics.activations import Activations
from onnxprune.steps.base import Context
from onnxprune.steps.prune.criteria.base import Criterion, Scores, ScoringContext, WeightReader
from onnxprune.steps.prune.criteria.expression import resolve_criterion


def check_data(criterion: Criterion, data: Data | None) -> None:
    """Raises UsageError when the criterion needs data, or labels, that are not there."""
    needs = " and ".join(need for need in criterion.needs if need != "weights")
    if needs and data is None:
        raise UsageError(f"criterion '{criterion.name}' needs {needs}: give --data (an .npz, a folder, or synthetic)")
    if "labels" in criterion.needs and data is not None and not data.labelled:
        raise UsageError(f"criterion '{criterion.name}' needs labels, and {data.source} has none: give --labels")


def score_with(
    context: Context, analysis: Analysis, groups: Sequence[Group], criterion: str | Criterion
) -> dict[str, Scores]:
    """Score the units of groups: per group id float64, shape [units]; the higher, the more a unit matters.

    Args:
        context: data for criteria on activations or gradients, providers, loss, device and seed.
        analysis: the model.
        groups: those to score.
        criterion: a name, or a combination as in `criteria.expression`.

    Raises UsageError for an unknown criterion, and for one that needs data or labels that were not given.
    """
    found = resolve_criterion(criterion) if isinstance(criterion, str) else criterion
    check_data(found, context.samples)
    observed = None
    if context.samples is not None and found.needs_data:
        observed = Activations(analysis, context.samples, providers=context.execution, progress=context.progress)
    scoring = ScoringContext(analysis, WeightReader(analysis), context.seed, observed, context.loss, context.device)
    return {group.id: found(group, scoring) for group in groups}


def score_model(
    analysis: Analysis, groups: Sequence[Group], criterion: str | Criterion, data: Data | None = None, **settings: Any
) -> dict[str, Scores]:
    """`score_with` for whoever has data and settings, but no context."""
    return score_with(Context(data=data, **settings), analysis, groups, criterion)
