"""Steps in proportion to what is there."""

from __future__ import annotations

import math

from onnxprune.steps.prune.schedule import schedule


@schedule("geometric")
def geometric(left: float, done: float) -> float:
    """Every step removes the same share of what the step before it has left."""
    return math.pow(left, done)
