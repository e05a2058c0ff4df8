"""Scores of all units of the chosen groups by one criterion, from the weights or from calibration data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxprune.analysis.groups import Analysis, Group
from onnxprune.data.base import Data
from onnxprune.errors import UsageError
from onnxprune.statistics.activations import Activations
from onnxprune.steps.base import Context
from onnxprune.steps.prune.criteria.base import Criterion, Scores, ScoringContext, WeightReader, criteria
from onnxprune.steps.prune.criteria.expression import resolve_criterion
from onnxprune.steps.recover.step import Recover
from onnxprune.steps.train.step import Train


def check_data(criterion: Criterion, data: Data | None) -> None:
    """Raises UsageError when the criterion needs data, or labels, that are not there."""
    needs = " and ".join(need for need in criterion.needs if need != "weights")
    if needs and data is None:
        raise UsageError(f"criterion '{criterion.name}' needs {needs}: give --data (an .npz, a folder, or synthetic)")
    if "labels" in criterion.needs and data is not None and not data.labelled:
        raise UsageError(f"criterion '{criterion.name}' needs labels, and {data.source} has none: give --labels")


@dataclass(frozen=True)
class UnitScores:
    """The scores of a criterion for some groups.

    Attributes:
        scores: per group id float64, shape [units]; the higher, the more a unit matters.
        unseen: ids of the groups among them that the criterion cannot see, scored by the size of their weights.
    """

    scores: dict[str, Scores]
    unseen: tuple[str, ...] = ()

    def remarks(self, criterion: str) -> tuple[str, ...]:
        """The notes for the user, in a line."""
        if not self.unseen:
            return ()
        named = ", ".join(self.unseen[:3]) + (f" and {len(self.unseen) - 3} more" if len(self.unseen) > 3 else "")
        return (f"criterion '{criterion}' cannot see {named}: scored by the size of the weights",)


def score_with(
    context: Context, analysis: Analysis, groups: Sequence[Group], criterion: str | Criterion
) -> dict[str, Scores]:
    """The scores of `score_units`."""
    return score_units(context, analysis, groups, criterion).scores


def score_units(
    context: Context, analysis: Analysis, groups: Sequence[Group], criterion: str | Criterion
) -> UnitScores:
    """Score the units of groups.

    Groups that the criterion cannot see are scored by the size of their weights. Where scores are comparable between
    groups, those get the mean that all units have which it sees.

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
    scoring = ScoringContext(
        analysis,
        WeightReader(analysis),
        context.seed,
        observed,
        context.loss,
        context.device,
        compensated=is_compensated(context),
    )
    scores = {group.id: found(group, scoring) for group in groups}
    unseen = tuple(group.id for group in groups if group.id in scoring.unseen)
    if unseen and found.comparable and found.name in criteria.names():  # a combination adds ranks: one scale already
        every = {**{group.id: found(group, scoring) for group in analysis.groups if group.id not in scores}, **scores}
        seen = [values for name, values in every.items() if name not in scoring.unseen]
        mean = float(np.abs(np.concatenate(seen)).mean()) if seen else 1.0
        for name in unseen:
            scores[name] = scores[name] * (mean / (float(scores[name].mean()) or 1.0))
    return UnitScores(scores, unseen)


def is_compensated(context: Context) -> bool:
    """Will weights make up for what goes: by the recovery that follows, or by a training?"""
    recoveries = [step for step in context.following if isinstance(step, Recover)]
    trained = any(isinstance(step, Train) for step in context.following)
    return trained or not recoveries or recoveries[0].compensates(data=context.samples is not None)


def score_model(
    analysis: Analysis, groups: Sequence[Group], criterion: str | Criterion, data: Data | None = None, **settings: Any
) -> dict[str, Scores]:
    """`score_with` for whoever has data and settings, but no context."""
    return score_with(Context(data=data, **settings), analysis, groups, criterion)
