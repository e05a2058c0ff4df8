"""Down along a line."""

from __future__ import annotations

from onnxprune.steps.train.options import TrainOptions
from onnxprune.steps.train.rate import fallen, rate_schedule, risen


@rate_schedule("linear")
def linear_rate(options: TrainOptions, done: float) -> float:
    """Up linearly during the warm-up, then down linearly to zero."""
    return risen(options, done) * (1 - fallen(options, done))
