"""Sequences that come out of scores by step, as text and speech recognizers give them."""

from __future__ import annotations

import numpy as np

from onnxprune.errors import DataError
from onnxprune.evaluation.metrics.base import IGNORED, Answer, Array, MetricSample, original_of, register

# Two samples of four steps and three classes, 0 the blank: they read 1 2 and 1 1.
_STEPS = np.eye(3)[[[1, 1, 0, 2], [1, 0, 1, 0]]].tolist()


@register(
    "sequence-accuracy",
    needs_labels=True,
    unit="%",
    sample=MetricSample(_STEPS, labels=[[1, 2, -100], [1, 2, -100]], value=0.5),
)
def sequence_accuracy(answer: Answer) -> tuple[float, float]:
    """Share of the samples whose sequence is that of the labels, which are filled up with -100.

    The best class of each step, repetitions and blanks (class 0) left out: best path decoding of A. Graves et al.,
    "Connectionist Temporal Classification", ICML 2006, section 3.2.
    """
    labels = answer.labels
    assert labels is not None
    found = _decoded(answer.output)
    if labels.ndim != 2 or len(labels) != len(found):
        raise DataError(f"labels of shape {labels.shape} are not sequences for {len(found)} samples")
    wanted = [tuple(row[row != IGNORED].tolist()) for row in labels]
    return float(sum(map(tuple.__eq__, found, wanted))), float(len(found))


@register(
    "sequence-agreement",
    needs_reference=True,
    perfect=1.0,
    unit="%",
    sample=MetricSample(_STEPS, reference=np.eye(3)[[[0, 1, 2, 2], [1, 1, 1, 0]]].tolist(), value=0.5),
)
def sequence_agreement(answer: Answer) -> tuple[float, float]:
    """Share of the samples whose sequence is that of the original, decoded as for sequence-accuracy."""
    found, wanted = _decoded(answer.output), _decoded(original_of(answer))
    return float(sum(map(tuple.__eq__, found, wanted))), float(len(found))


def _decoded(scores: Array) -> list[tuple[int, ...]]:
    """The classes of each sample. Raises DataError for scores that are not [samples, steps, classes]."""
    if scores.ndim != 3 or scores.shape[-1] < 2:
        raise DataError(f"an output of shape {scores.shape} holds no sequences: they are [samples, steps, classes]")
    best = scores.argmax(axis=-1)
    changes = np.diff(best, axis=1, prepend=-1) != 0
    return [tuple(row[mask & (row != 0)].tolist()) for row, mask in zip(best, changes, strict=True)]
