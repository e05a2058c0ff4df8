"""What a report shows of a cut beyond its numbers: the model by stages, how scores are spread, what is frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxprune.analysis.coupling import Analysis
from onnxprune.steps.prune.criteria.base import Scores
from onnxprune.steps.plan import Plan
from onnxprune.report.data import Details, frozen
from onnxprune.report.scores import histogram
from onnxprune.analysis.stages import stages_of

BINS = 32


def details_of(analysis: Analysis, plan: Plan, scores: Mapping[str, Scores] | None) -> Details:
    """The details of a plan; `analysis` is that of the whole model, `scores` None where nothing was scored."""
    keep = plan.keep(analysis)
    kept = {atom: int(mask.sum()) for atom, mask in keep.items()}
    spread = []
    for group in analysis.groups:
        if scores is not None and group.id in scores:
            mask = keep.get(group.atom, np.ones(group.units, dtype=np.bool_))
            spread.append(_spread(group.id, scores[group.id], mask))
    return Details(tuple(stages_of(analysis, kept)), tuple(frozen(analysis)), tuple(spread))


def _spread(group: str, scores: Scores, keep: Any) -> dict[str, Any]:
    """Lowest and highest score of a group, and how many units lie in each of BINS equal parts between them."""
    ends = (float(scores.min()), float(scores.max()))
    return {
        "id": group,
        "lowest": ends[0],
        "median": float(np.median(scores)),
        "highest": ends[1],
        "kept": histogram(scores[keep], BINS, ends).tolist(),
        "removed": histogram(scores[~keep], BINS, ends).tolist(),
    }
