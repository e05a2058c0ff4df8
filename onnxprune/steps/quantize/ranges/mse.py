"""What is least off."""

from __future__ import annotations

import numpy as np

from onnxprune.steps.quantize.ranges.base import Range, Spread, clipped_range, range_method

_SHARES = np.linspace(1.0, 0.3, 15)


@range_method("mse")
def least_error(spread: Spread) -> list[Range]:
    """With the least squared error of what the layers give that read the value, of thresholds for both ends."""
    limits = _SHARES * max(-spread.low, spread.high)
    return [clipped_range(spread, float(limit)) for limit in limits]
