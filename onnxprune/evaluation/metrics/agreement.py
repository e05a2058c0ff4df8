"""Does the model choose as the original does?"""

from __future__ import annotations

import numpy as np

from onnxprune.evaluation.metrics.base import Answer, MetricSample, classes_last, original_of, register

_HALF = MetricSample([[1, 2], [3, 1]], reference=[[0, 5], [1, 2]], value=0.5)


@register("agreement", needs_reference=True, perfect=1.0, unit="%", sample=_HALF)
def agreement(answer: Answer) -> tuple[float, float]:
    """Share of the samples with the same arg-max as the original; of outputs that are not floats, of equal entries.

    Classes lie along the last axis, from four axes on (segmentation) along axis 1. A sample with NaN does not agree.
    """
    output, original = answer.output, original_of(answer)
    if output.dtype.kind == "f":
        output, original = classes_last(output), classes_last(original)
        same = output.argmax(axis=-1) == original.argmax(axis=-1)
        same &= ~(np.isnan(output).any(axis=-1) | np.isnan(original).any(axis=-1))
    else:
        same = np.asarray(output == original)
    return float(np.count_nonzero(same)), float(same.size)
