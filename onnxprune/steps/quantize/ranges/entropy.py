"""The range whose integers keep most of the distribution."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnxprune.steps.quantize.ranges.base import Range, Spread, clipped_range, range_method

_LEVELS = 256
_TRIED = 48


@range_method("entropy")
def least_divergence(spread: Spread) -> list[Range]:
    """Where the distribution on the grid is nearest to that of the numbers, by Kullback and Leibler.

    Migacz 2017, "8-bit Inference with TensorRT" (GTC): what is larger than a threshold counts at the ends of the
    clipped distribution, and of the one on the grid it does not.
    """
    edges, found = spread.edges, []
    for limit in np.linspace(1.0, 0.02, _TRIED) * max(-spread.low, spread.high):
        inside = (edges[1:] > -limit) & (edges[:-1] < limit)
        if inside.sum() >= _LEVELS:
            found.append((_divergence(spread.counts, inside), -limit))
    limit = -min(found)[1] if found else max(-spread.low, spread.high)
    return [clipped_range(spread, float(limit))]


def _divergence(counts: npt.NDArray[np.float64], inside: npt.NDArray[np.bool_]) -> float:
    """Of the clipped distribution from that on the grid: sum of p log(p / q)."""
    places = np.flatnonzero(inside)
    kept = counts[places]
    clipped = kept.copy()
    clipped[0] += counts[: places[0]].sum()
    clipped[-1] += counts[places[-1] + 1 :].sum()
    level = np.arange(len(kept)) * _LEVELS // len(kept)
    used = kept > 0
    sums, filled = np.bincount(level, kept, _LEVELS), np.bincount(level, used, _LEVELS)
    on_grid = np.where(used, (sums / np.maximum(filled, 1))[level], 0.0)
    p, q = clipped / max(clipped.sum(), 1.0), on_grid / max(on_grid.sum(), 1.0)
    some = p > 0
    return float(np.sum(p[some] * np.log(p[some] / np.maximum(q[some], 1e-12))))
