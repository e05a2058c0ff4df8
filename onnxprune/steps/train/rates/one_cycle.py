"""Up and down once."""

from __future__ import annotations

from onnxprune.steps.train.options import TrainOptions
from onnxprune.steps.train.rate import fallen, half_cosine, rate_schedule, risen


@rate_schedule("one-cycle")
def one_cycle_rate(options: TrainOptions, done: float) -> float:
    """Up along half a cosine during the warm-up, then down along half a cosine to zero.

    Smith and Topin 2018, "Super-Convergence", with cosines in place of lines.
    """
    return (1 - half_cosine(risen(options, done))) * half_cosine(fallen(options, done))
