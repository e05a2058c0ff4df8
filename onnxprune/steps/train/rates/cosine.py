"""Down along a cosine."""

from __future__ import annotations

from onnxprune.steps.train.options import TrainOptions
from onnxprune.steps.train.rate import fallen, half_cosine, rate_schedule, risen


@rate_schedule("cosine")
def cosine_rate(options: TrainOptions, done: float) -> float:
    """Up linearly during the warm-up, then along half a cosine to zero.

    Loshchilov and Hutter 2017, "SGDR", equation 5 without restarts.
    """
    return risen(options, done) * half_cosine(fallen(options, done))
