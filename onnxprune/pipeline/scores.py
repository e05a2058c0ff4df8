"""Measured of a model before anything is removed: scores of its units, and how much the cut of each group harms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from onnxprune.analysis.groups import Group
from onnxprune.analysis.held import nothing_to_prune
from onnxprune.analysis.inspect import blaming
from onnxprune.analysis.select import select_groups
from onnxprune.errors import NothingToPruneError
from onnxprune.model.file import name_of
from onnxprune.pipeline.opening import open_and_inspect
from onnxprune.steps.base import Context
from onnxprune.steps.prune import sensitivity as measuring
from onnxprune.steps.prune.criteria.base import Scores
from onnxprune.steps.prune.criteria.expression import resolve_criterion
from onnxprune.steps.prune.options import CRITERION
from onnxprune.steps.prune.score import check_data, score_with
from onnxprune.steps.prune.step import Prune
from onnxprune.steps.recover.step import Recover
from onnxprune.steps.state import State
from onnxprune.support.progress import Progress, silent


def score(
    model: Any,
    criterion: Any = None,
    data: Any = None,
    *,
    only: str | Sequence[str] = (),
    skip: str | Sequence[str] = (),
    progress: Progress = silent,
    **settings: Any,
) -> dict[str, Scores]:
    """Score the units of a model: per group id float64, shape [units]; the higher, the more a unit matters.

    Args:
        model: as for `compress`; it is only read.
        criterion: name of the score, like "l1", a combination like "l2*0.7+random*0.3", or a function; None: the one
            that `compress` takes, obs with data and group-l2 without.
        data: calibration data, for criteria that need more than the weights.
        only: kinds or name patterns to score (empty: all).
        skip: kinds or name patterns to leave out.
        progress: is called with what is being done.
        settings: of the context, like seed.

    Raises UsageError for options that make no sense, ModelError for a file that cannot be worked on.
    """
    options = Prune(criterion=criterion, only=only, skip=skip)  # type: ignore[arg-type]
    chosen = options.scored_by(data=data is not None)
    if data is None:
        check_data(chosen, None)  # before any work
    with blaming(model):
        context = Context(**settings, progress=progress)
        given = open_and_inspect(model, context, data)
        given = given if data is None else given.fed(context)
        progress("scoring")
        groups = select_groups(given.analysis, options.only, options.skip)
        return score_with(replace(context, data=given.data), given.analysis, groups, chosen)


def sensitivity(
    model: Any,
    data: Any,
    *,
    ratios: Sequence[float] = measuring.RATIOS,
    criterion: Any = CRITERION,
    recover: str | None = None,
    only: str | Sequence[str] = (),
    skip: str | Sequence[str] = (),
    progress: Progress = silent,
    **settings: Any,
) -> tuple[list[Group], measuring.Sensitivity]:
    """Cut every group alone and measure what that does: the groups, and the curve of each.

    Args:
        model: as for `compress`; it is only read.
        data: what to measure on.
        ratios: shares of the units of each group.
        criterion: which units of a group go first.
        recover: how every cut is recovered before it is measured; the samples that it is measured on are then every
            third, which recovery does not see.
        only: kinds or name patterns to measure (empty: all).
        skip: kinds or name patterns to leave out.
        progress: is called with what is being done.
        settings: of the context: metric, jobs, cache, seed.

    Raises UsageError for options that make no sense, ModelError for a file that cannot be worked on, and
    NothingToPruneError when no group is left.
    """
    options = Prune(criterion=criterion, only=only, skip=skip)  # type: ignore[arg-type]
    recovery = None if recover in (None, "none") else Recover(recover)
    with blaming(model):
        context = Context(**settings, progress=progress)
        given = open_and_inspect(model, context, data).fed(context)
        groups = select_groups(given.analysis, options.only, options.skip)
        if not groups:
            raise NothingToPruneError(nothing_to_prune(given.analysis, name_of(given.source)))
        context = replace(context, data=given.data)
        scores = score_with(context, given.analysis, groups, resolve_criterion(criterion))
        state = State.of(given.analysis, given.source)
        return groups, measuring.measure_sensitivity(state, groups, scores, context, recover=recovery, ratios=ratios)
