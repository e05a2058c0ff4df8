"""Every way to choose a range promises the same; and each does what it says."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.data.base import Batch
from onnxprune.steps.quantize.grids import grid_of
from onnxprune.steps.quantize.observe import Distribution, Extremes, RangeErrors
from onnxprune.steps.quantize.ranges.base import RANGES, Spread


def spread_of(values: np.ndarray) -> Spread:
    seen, batch = Extremes(), Batch({})
    seen.update(values, batch)
    found = Distribution(seen.low, seen.high)
    found.update(values, batch)
    return found.spread


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("kind", ["normal", "rectified", "constant", "zero", "negative"])
def test_ranges_hold_zero_and_lie_within_what_was_seen(name: str, kind: str) -> None:
    normal = np.random.default_rng(0).standard_normal(5000)
    values = {
        "normal": normal,
        "rectified": np.maximum(normal, 0),
        "constant": np.full(100, 3.0),
        "zero": np.zeros(100),
        "negative": -np.abs(normal),
    }[kind]
    spread = spread_of(values)
    found = RANGES[name].choose(spread)
    assert found
    for low, high in found:
        assert spread.low <= low <= 0 <= high <= spread.high
        assert grid_of(low, high, signed=False).scale > 0


@pytest.mark.parametrize("name", ["percentile", "entropy"])
def test_outliers_are_left_out(name: str) -> None:
    values = np.append(np.random.default_rng(0).standard_normal(50_000), 100.0)
    ((_, high),) = RANGES[name].choose(spread_of(values))
    assert 2 < high < 30


def test_the_range_is_taken_with_which_readers_are_least_off() -> None:
    """Of a value with rare outliers a narrow range is off least; of an even one the whole range."""
    rng, batch = np.random.default_rng(0), Batch({})
    even = rng.uniform(0, 1, (1000, 8)).astype(np.float32)
    rare = even.copy()
    rare[0, 0] = 20.0
    grids = [grid_of(0, high, signed=False) for high in (20.0, 1.0)]
    for values, best in ((even, 1), (rare, 0)):
        errors = RangeErrors(grids, [], itself=True)
        errors.update(values, batch)
        assert int(np.argmin(errors.errors)) == best
