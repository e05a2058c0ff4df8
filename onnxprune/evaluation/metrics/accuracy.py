"""Right answers: the labels against the classes that a model scores highest."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.errors import DataError
from onnxprune.evaluation.metrics.base import IGNORED, Answer, MetricSample, register

Array = npt.NDArray[Any]


_SCORES = ([6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6])


@register("accuracy", needs_labels=True, unit="%", sample=MetricSample(_SCORES, labels=(0, 0), value=0.5))
def accuracy(answer: Answer) -> tuple[float, float]:
    """Share of the labels that the model gives."""
    assert answer.labels is not None
    if answer.output.dtype.kind in "iub" and answer.output.shape == answer.labels.shape:  # classes, not their scores
        counted = answer.labels != IGNORED
        return float(np.count_nonzero((answer.output == answer.labels) & counted)), float(np.count_nonzero(counted))
    return _hits(answer, 1)


@register("top5", needs_labels=True, unit="%", sample=MetricSample(_SCORES, labels=(4, 1), value=1.0))
def top5(answer: Answer) -> tuple[float, float]:
    """Share of the labels that are among the model's first five."""
    return _hits(answer, 5)


def _hits(answer: Answer, places: int) -> tuple[float, float]:
    """Labels within the first `places`, of equal scores those first that come first; a sample with NaN has no hit."""
    scores, labels = _scores_and_labels(answer)
    classes = scores.shape[-1]
    if classes <= places:
        hint = "binary-accuracy or mae" if classes == 1 else "accuracy"
        raise DataError(f"an output of {classes} classes is always right within {places}: use another metric, {hint}")
    counted = labels != IGNORED
    scores, labels = scores[counted], labels[counted]
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        raise DataError(f"labels go from {labels.min()} to {labels.max()}, but the output has {classes} classes")
    own = np.take_along_axis(scores, labels[:, None], axis=-1)
    before = (scores == own) & (np.arange(classes) < labels[:, None])
    rank = ((scores > own) | before).sum(axis=-1)
    hits = (rank < places) & ~np.isnan(scores).any(axis=-1)
    return float(np.count_nonzero(hits)), float(len(labels))


def _scores_and_labels(answer: Answer) -> tuple[Array, npt.NDArray[np.int64]]:
    """Scores [..., classes] and labels [...]. Raises DataError where they do not fit."""
    output, labels = answer.output, answer.labels
    assert labels is not None
    whole = labels.astype(np.int64)
    if not np.array_equal(whole, labels):
        raise DataError("labels are fractions, not classes: use a metric of your own, module:function")
    if output.dtype.kind == "f" and whole.shape == output.shape[:-1]:
        return output, whole
    if output.dtype.kind == "f" and whole.shape == (*output.shape[:1], *output.shape[2:]):
        return np.moveaxis(output, 1, -1), whole
    raise DataError(f"labels of shape {whole.shape} do not fit an output {output.dtype.name} of shape {output.shape}")
