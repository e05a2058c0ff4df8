"""Boxes that a detector finds, against those of the original."""

from __future__ import annotations

import numpy as np

from onnxprune.errors import DataError
from onnxprune.evaluation.metrics.base import Answer, Array, MetricSample, original_of, register

# Boxes are the same from this overlap on, intersection over union.
_OVERLAP = 0.5
# More boxes than this are anchors rather than what was found.
_MOST = 2000

_FOUND = [[[0, 0, 2, 2], [5, 5, 6, 6], [0, 0, 0, 0]]]
_ORIGINAL = [[[0, 0, 2, 2.5], [8, 8, 9, 9], [3, 3, 4, 4]]]


@register(
    "box-f1",
    needs_reference=True,
    perfect=1.0,
    unit="%",
    any_sizes=True,
    sample=MetricSample(_FOUND, reference=_ORIGINAL, value=0.4),
)
def box_f1(answer: Answer) -> tuple[float, float]:
    """F1 score of the boxes against those of the original, the same from an overlap (IoU) of 0.5 on.

    Boxes are x1, y1, x2, y2 in the first entries of the last axis; those without an area are none. Each is the same as
    one other at most: pairs are taken by their overlap, the largest first, as in M. Everingham et al., "The PASCAL
    Visual Object Classes (VOC) Challenge", IJCV 88 (2010), section 4.2.
    """
    equal = total = 0
    for found, wanted in zip(_by_sample(answer.output), _by_sample(original_of(answer)), strict=True):
        equal += _pairs(found, wanted)
        total += len(found) + len(wanted)
    return (2.0 * equal, float(total)) if total else (1.0, 1.0)


def _by_sample(boxes: Array) -> list[Array]:
    """Boxes with an area, [boxes, 4], of each sample; without an axis for samples all are of one."""
    if boxes.ndim not in (2, 3) or boxes.shape[-1] < 4 or boxes.dtype.kind not in "fiu":
        raise DataError(f"an output of shape {boxes.shape} holds no boxes: they are [samples, boxes, 4] or [boxes, 4]")
    samples = boxes[None] if boxes.ndim == 2 else boxes
    if samples.shape[1] > _MOST:
        raise DataError(f"{samples.shape[1]} boxes are all that were looked at, not those found: name another output")
    found = samples[..., :4].astype(np.float64)
    return [each[((each[:, 2:] > each[:, :2]).all(axis=1))] for each in found]


def _pairs(found: Array, wanted: Array) -> int:
    """How many boxes have a partner."""
    overlap = _overlaps(found, wanted)
    count = 0
    while overlap.size and overlap.max() >= _OVERLAP:
        row, column = np.unravel_index(overlap.argmax(), overlap.shape)
        overlap[row, :] = overlap[:, column] = 0
        count += 1
    return count


def _overlaps(found: Array, wanted: Array) -> Array:
    """Intersection over union, [found, wanted]."""
    low = np.maximum(found[:, None, :2], wanted[None, :, :2])
    high = np.minimum(found[:, None, 2:], wanted[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=-1)
    areas = [(each[:, 2:] - each[:, :2]).prod(axis=-1) for each in (found, wanted)]
    return np.asarray(shared / (areas[0][:, None] + areas[1][None, :] - shared))
