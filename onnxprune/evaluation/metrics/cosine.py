"""The angle between the outputs and those of the original."""

from __future__ import annotations

import numpy as np

from onnxprune.evaluation.metrics.base import Answer, MetricSample, floats, register

_HALF = MetricSample([[0, 7], [6, 8]], reference=[[1, 0], [3, 4]], value=0.5)


@register("cosine", needs_reference=True, perfect=1.0, sample=_HALF)
def cosine(answer: Answer) -> tuple[float, float]:
    """Mean cosine between the outputs for a sample and those of the original."""
    output, original = (array.reshape(len(array), -1) for array in floats(answer))
    norms = np.linalg.norm(output, axis=1) * np.linalg.norm(original, axis=1)
    products = (output * original).sum(axis=1)
    both_zero = ~output.any(axis=1) & ~original.any(axis=1)
    divisors = np.where(norms == 0, 1.0, norms)
    cosines = np.where(both_zero, 1.0, products / divisors)
    return float(cosines.sum()), float(len(cosines))
