"""From how a value is spread to the part of its range that integers are spent on.

A way to choose is a function from a histogram to ranges that are worth a try. Where there are several, the one is taken
with which the layers that read the value give the least error, see `steps.quantize.observe`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxprune.support.registry import Registry, summary


@dataclass(frozen=True)
class Spread:
    """How a value is spread over calibration data.

    Attributes:
        low, high: the least and the largest number; 0 lies between them.
        counts: how many numbers lie in each of equal parts of that range: float64, shape [bins].
    """

    low: float
    high: float
    counts: npt.NDArray[np.float64]

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """Where the parts begin and end: shape [bins + 1]."""
        return np.linspace(self.low, self.high, len(self.counts) + 1)


Range = tuple[float, float]


def clipped_range(spread: Spread, limit: float) -> Range:
    """What was seen, without what is larger than a threshold on either side."""
    return max(spread.low, -limit), min(spread.high, limit)


ChooseRanges = Callable[[Spread], list[Range]]


@dataclass(frozen=True)
class RangeMethod:
    """A way to choose a range, by its name."""

    name: str
    choose: ChooseRanges

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return summary(self.choose)


RANGES: Registry[str, RangeMethod] = Registry("range", __package__, "onnxprune.ranges")


def range_method(name: str) -> Callable[[ChooseRanges], ChooseRanges]:
    """Decorator: make a way to choose ranges known by a name. Raises ValueError when the name is taken."""

    def add(choose: ChooseRanges) -> ChooseRanges:
        RANGES.register(name)(RangeMethod(name, choose))
        return choose

    return add
