"""All of it."""

from __future__ import annotations

from onnxprune.steps.quantize.ranges.base import Range, Spread, range_method


@range_method("minmax")
def minmax(spread: Spread) -> list[Range]:
    """From the least to the largest number that was seen."""
    return [(spread.low, spread.high)]
