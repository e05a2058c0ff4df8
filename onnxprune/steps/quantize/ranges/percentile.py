"""All but the outermost."""

from __future__ import annotations

import numpy as np

from onnxprune.steps.quantize.ranges.base import Range, Spread, range_method

_LEFT_OUT = 1e-4


@range_method("percentile")
def percentile(spread: Spread) -> list[Range]:
    """All but one number in ten thousand, half of those at each end."""
    shares = np.cumsum(spread.counts) / max(spread.counts.sum(), 1.0)
    first = int(np.searchsorted(shares, _LEFT_OUT / 2))
    last = int(np.searchsorted(shares, 1 - _LEFT_OUT / 2))
    edges = spread.edges
    return [(min(float(edges[first]), 0.0), max(float(edges[min(last + 1, len(edges) - 1)]), 0.0))]
