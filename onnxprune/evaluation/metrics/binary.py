"""One number for each sample: the probability of the one class that there is."""

from __future__ import annotations

import numpy as np

from onnxprune.errors import DataError
from onnxprune.evaluation.metrics.base import IGNORED, Answer, Array, MetricSample, original_of, register

_SCORES = ([[0.9], [0.2], [0.6], [0.4]], [1, 0, 0, 1])


@register("binary-accuracy", needs_labels=True, unit="%", sample=MetricSample(_SCORES[0], labels=_SCORES[1], value=0.5))
def binary_accuracy(answer: Answer) -> tuple[float, float]:
    """Share of the labels, 0 or 1, that the model gives: its output is a probability, above 0.5 for 1."""
    scores, labels = _scores_and_labels(answer)
    return float(np.count_nonzero((scores > 0.5) == labels)), float(labels.size)


@register("auc", needs_labels=True, together=True, sample=MetricSample(_SCORES[0], labels=_SCORES[1], value=0.75))
def auc(answer: Answer) -> tuple[float, float]:
    """Area under the ROC curve: share of the pairs of a 1 and a 0 that are scored in that order, equal ones half.

    By ranks: J. A. Hanley and B. J. McNeil, "The Meaning and Use of the Area under a Receiver Operating Characteristic
    (ROC) Curve", Radiology 143 (1982), which shows that it is the Wilcoxon statistic.
    """
    scores, labels = _scores_and_labels(answer)
    ones, zeros = scores[labels], np.sort(scores[~labels])
    if not ones.size or not zeros.size:
        raise DataError("all labels are the same, so there is nothing to tell apart: auc needs both 0 and 1")
    below, upto = (np.searchsorted(zeros, ones, side) for side in ("left", "right"))
    return float((below + upto).sum() / 2), float(ones.size * zeros.size)


@register(
    "binary-agreement",
    needs_reference=True,
    perfect=1.0,
    unit="%",
    sample=MetricSample(_SCORES[0], reference=[[0.8], [0.7], [0.9], [0.1]], value=0.75),
)
def binary_agreement(answer: Answer) -> tuple[float, float]:
    """Share of the outputs on the same side of 0.5 as the original's; NaN is on none."""
    output, original = answer.output, original_of(answer)
    same = ((output > 0.5) == (original > 0.5)) & ~np.isnan(output)
    return float(np.count_nonzero(same)), float(same.size)


def _scores_and_labels(answer: Answer) -> tuple[Array, Array]:
    """Scores and labels, bool, of the samples that count. Raises DataError where they do not fit, or are not binary."""
    labels = answer.labels
    assert labels is not None
    if answer.output.size != labels.size:
        raise DataError(
            f"labels of shape {labels.shape} do not fit an output of shape {answer.output.shape}: it needs one each"
        )
    scores, flat = answer.output.reshape(-1), labels.reshape(-1)
    counted = flat != IGNORED
    scores, flat = scores[counted], flat[counted]
    if not np.isin(flat, (0, 1)).all():
        raise DataError("labels are not 0 and 1: use accuracy for classes, or mae for numbers")
    return scores, flat.astype(bool)
