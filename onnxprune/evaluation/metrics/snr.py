"""How large the difference from the original is, beside the original."""

from __future__ import annotations

from math import log10

import numpy as np

from onnxprune.evaluation.metrics.base import Answer, MetricSample, floats, register


def _decibel(signal: float, noise: float) -> float:
    if not noise:
        return float("inf")
    return 10 * log10(signal / noise) if signal else float("-inf")


_ONE = MetricSample([[3, 3], [3, 4]], reference=[[3, 3], [3, 3]], value=10 * log10(36))


@register("snr", needs_reference=True, perfect=float("inf"), unit="dB", finish=_decibel, sample=_ONE)
def snr(answer: Answer) -> tuple[float, float]:
    """Signal to noise in dB: the original's power over that of the difference from it, of all samples together."""
    output, original = floats(answer)
    return float(np.square(original).sum()), float(np.square(output - original).sum())
