"""Errors of outputs that are numbers: against labels, and against the original."""

from __future__ import annotations

import numpy as np

from onnxprune.errors import DataError
from onnxprune.evaluation.metrics.base import Answer, MetricSample, floats, register


@register(
    "mae", needs_labels=True, higher_is_better=False, sample=MetricSample([[1.0], [4.0]], labels=[2, 6], value=1.5)
)
def mae(answer: Answer) -> tuple[float, float]:
    """Mean absolute difference from the labels."""
    labels = answer.labels
    assert labels is not None
    if answer.output.dtype.kind not in "fiub" or answer.output.size != labels.size:
        raise DataError(
            f"labels of shape {labels.shape} do not fit an output {answer.output.dtype.name} of shape "
            f"{answer.output.shape}: mae needs a number for each"
        )
    apart = np.abs(answer.output.astype(np.float64).reshape(labels.shape) - labels)
    return float(apart.sum()), float(apart.size)


@register(
    "relative-error",
    needs_reference=True,
    higher_is_better=False,
    perfect=0.0,
    sample=MetricSample([[1.0, 3.0]], reference=[[2.0, 2.0]], value=0.5),
)
def relative_error(answer: Answer) -> tuple[float, float]:
    """Sum of the absolute differences from the original, over that of the original itself."""
    output, original = floats(answer)
    return float(np.abs(output - original).sum()), float(np.abs(original).sum())
