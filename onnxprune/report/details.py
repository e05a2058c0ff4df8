"""Details of a cut in a report, beyond its numbers: the model by stages, how scores are spread, what is frozen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.analysis.groups import Analysis
from onnxprune.pipeline.result import Result
from onnxprune.report.stages import stages_of
from onnxprune.steps.prune.criteria.base import Scores

BINS = 32
# Half of the scores in so small a share of their range are a single bar.
_CROWDED = 0.05


def details_of(result: Result) -> Details:
    """The details of a result: what its last cut was made from."""
    state = result.state
    analysis = state.original if result.is_cut else result.before
    kept = {atom: int(mask.sum()) for atom, mask in state.left.items()} if result.is_cut else {}
    prunes = [record.numbers for record in state.records if "scores" in record.numbers]
    spread = []
    for group in analysis.groups if len(prunes) == 1 else ():
        if group.id in prunes[0]["scores"]:
            spread.append(_spread(group.id, prunes[0]["scores"][group.id], state.mask(group)))
    return Details(tuple(stages_of(analysis, kept)), tuple(frozen(analysis)), tuple(spread))


def _spread(group: str, scores: Scores, keep: Any) -> dict[str, Any]:
    """Lowest and highest score of a group, and how many units lie in each of BINS equal parts between them.

    The parts are equal on a logarithmic axis where the scores are skewed.
    """
    lowest, median, highest = (float(each) for each in np.percentile(scores, (0, 50, 100)))
    logarithmic = is_skewed(scores)
    scores = np.log(scores) if logarithmic else scores
    ends = (float(scores.min()), float(scores.max()))
    return {
        "id": group,
        "lowest": lowest,
        "median": median,
        "highest": highest,
        "logarithmic": logarithmic,
        "kept": histogram(scores[keep], BINS, ends).tolist(),
        "removed": histogram(scores[~keep], BINS, ends).tolist(),
    }


def is_skewed(scores: Scores) -> bool:
    """Do more than half of the scores share a twentieth of their range, so that a logarithm shows more of them?"""
    lowest, median, highest = np.percentile(scores, (0, 50, 100))
    return bool(lowest > 0 and median / highest - lowest / highest < _CROWDED * (1 - lowest / highest))


def histogram(values: Scores, bins: int, ends: tuple[float, float]) -> npt.NDArray[np.int64]:
    """How many values lie in each of `bins` equal parts between two ends."""
    parts = np.minimum((along(values, ends) * bins).astype(np.int64), bins - 1)
    return np.bincount(parts, minlength=bins)


def along(values: Scores, ends: tuple[float, float]) -> Scores:
    """Where values lie between two ends, 0 to 1; in the middle where the ends are the same."""
    size = max(map(abs, ends)) or 1.0  # scores may be as large as a float can be
    low, high = (end / size for end in ends)
    return np.asarray((values / size - low) / (high - low) if high - low > 1e-12 else np.full(np.shape(values), 0.5))


@dataclass(frozen=True)
class Details:
    """The cut, seen from closer.

    Attributes:
        stages: layers and joins with their widths, see `report.stages.stages_of`.
        frozen: weight axes that keep their size, see `frozen`.
        scores: per group that was scored, how its scores are spread, see `report.details`.
    """

    stages: tuple[dict[str, Any], ...] = ()
    frozen: tuple[dict[str, Any], ...] = ()
    scores: tuple[dict[str, Any], ...] = ()


def frozen(analysis: Analysis) -> list[dict[str, Any]]:
    """Every weight axis that keeps its size, with the reason and the node that gave it."""
    return [
        {
            "tensor": axis.tensor,
            "axis": axis.axis,
            "size": axis.size,
            "reason": axis.reason.text,
            "node": axis.reason.node or None,
            "operator": axis.reason.op_type or None,
        }
        for axis in analysis.frozen
    ]
