"""How far the predicted distribution is from that of the original."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnxprune.evaluation.metrics.base import Answer, MetricSample, classes_last, floats, register

# 0.5 log(0.5 / 0.2) + 0.5 log(0.5 / 0.8)
_COIN = MetricSample([[0.2, 0.8]], reference=[[0.5, 0.5]], value=0.2231435513)


@register("kl", needs_reference=True, higher_is_better=False, perfect=0.0, sample=_COIN)
def kl(answer: Answer) -> tuple[float, float]:
    """Mean Kullback-Leibler divergence of the softmax from that of the original, in nats; less is better.

    Classes lie as for agreement. Where the original's outputs are probabilities already, both are taken as they are.
    """
    output, original = map(classes_last, floats(answer))
    ready = bool((original >= 0).all() and np.allclose(original.sum(axis=-1), 1.0, atol=1e-3))
    log_p, log_q = (_log_probabilities(scores, ready) for scores in (original, output))
    p = np.exp(log_p)
    with np.errstate(invalid="ignore"):
        terms = np.where(p > 0, p * (log_p - log_q), 0.0)
    return float(terms.sum()), float(np.prod(output.shape[:-1]))


def _log_probabilities(scores: npt.NDArray[np.float64], ready: bool) -> npt.NDArray[np.float64]:
    if ready:
        with np.errstate(invalid="ignore"):  # what underflowed to 0 in float32 is as small as float32 gets
            return np.log(np.where(np.isnan(scores), scores, np.maximum(scores, np.finfo(np.float32).tiny)))
    shifted = scores - scores.max(axis=-1, keepdims=True)
    logs: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logs
