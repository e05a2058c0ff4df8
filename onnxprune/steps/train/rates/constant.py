"""Up, and then the same."""

from __future__ import annotations

from onnxprune.steps.train.options import TrainOptions
from onnxprune.steps.train.rate import rate_schedule, risen


@rate_schedule("constant")
def constant_rate(options: TrainOptions, done: float) -> float:
    """Up linearly during the warm-up, then the same: low rates of fine-tuning."""
    return risen(options, done)
