"""Is one model faster than another, and by how much? Said with an interval, and in words.

Runs of the same round are a pair: the machine's mood of that moment divides out of their ratio (Bulej et al., "Duet
Benchmarking", ICPE 2020). Where there is processor time, that is compared: what other programs take from the clock on
the wall says nothing about the models. Runs of one session are not independent of each other, sessions are; so sessions
are what is resampled (Kalibera and Jones, "Rigorous Benchmarking in Reasonable Time", ISMM 2013). Each gives
one number, the median of the log ratios of its pairs, and the difference is the mean of these.

The interval is the symmetric bootstrap-t interval (Hall, "On Symmetric Bootstrap Confidence Intervals", Journal of the
Royal Statistical Society B 50, 1988): how many standard errors a mean of so few numbers may be away by chance is read
off resamples. The percentile interval is too narrow for a dozen numbers: twice as many false alarms as promised.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import exp, isnan, nan

import numpy as np
import numpy.typing as npt

from onnxprune.runtime.latency import Latency

# At 0.95, one series in four of twenty comparisons of a file with itself would have two or more false alarms.
CONFIDENCE = 0.99
# Fewer tell too little.
_FEWEST_SESSIONS = 8
_RESAMPLES = 20_000
# Less than this is what the layout of memory does (see benchmarks/results/false_alarms.md), and nobody's
# reason to choose a model.
_NEGLIGIBLE = 1.01
# An interval that is as wide as this would hide differences that matter.
_NOISY = 1.1


@dataclass(frozen=True)
class Comparison:
    """A model against the one that it is compared with.

    Attributes:
        ratio: seconds of the model over seconds of the other; below 1 it is faster.
        low: lower end of the ratio's confidence interval; NaN where there are too few sessions for one.
        high: upper end. The interval holds the true ratio in 99 of 100 comparisons.
    """

    ratio: float
    low: float
    high: float

    @property
    def real(self) -> bool:
        """Whether the whole interval lies on one side of 1, one percent or more away."""
        return self.high < 1 / _NEGLIGIBLE or self.low > _NEGLIGIBLE

    @property
    def noisy(self) -> bool:
        """Whether a difference that matters could hide in the interval, or there is none."""
        return isnan(self.low) or (not self.real and self.high > self.low * _NOISY)

    @property
    def words(self) -> str:
        """`1.31x faster (1.27 to 1.35)`, `1.08x slower (...)` or `no real difference (0.98x to 1.01x)`."""
        if isnan(self.low):
            return f"measured too seldom to tell (it took {self.ratio:.2f} times as long)"
        if not self.real:
            noisy = ": too noisy to tell more" if self.noisy else ""
            return f"no real difference ({1 / self.high:.3f}x to {1 / self.low:.3f}x as fast{noisy})"
        if self.ratio < 1:
            factors, direction = (1 / self.ratio, 1 / self.high, 1 / self.low), "faster"
        else:
            factors, direction = (self.ratio, self.low, self.high), "slower"
        digits = 2 if factors[1] >= 1.1 else 3
        middle, low, high = (f"{factor:.{digits}f}" for factor in factors)
        return f"{middle}x {direction} ({low} to {high})"


def compare(first: Latency, other: Latency) -> Comparison:
    """`other` against `first`, both from one call of `measure`."""
    logs = session_log_ratios(first, other)
    low, high = interval(logs)
    return Comparison(exp(logs.mean()), exp(low), exp(high))


def session_log_ratios(first: Latency, other: Latency) -> npt.NDArray[np.float64]:
    """Per session, the median of log(other / first) over its rounds [sessions]."""
    before, after = seconds_compared(first, other)
    logs = np.log(after / before)
    sessions = np.array(first.sessions)
    return np.array([np.median(logs[sessions == session]) for session in np.unique(sessions)])


def seconds_compared(first: Latency, other: Latency) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The seconds of both [rounds], on the clock that they are compared by: the processor's where both have it."""
    both = [(first.seconds, other.seconds), (first.processor_seconds, other.processor_seconds)]
    before, after = both[1] if all(both[1]) else both[0]
    return np.array(before), np.array(after)


def interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The symmetric bootstrap-t interval of the mean of independent values [n]; NaN where n is below eight."""
    if len(values) < _FEWEST_SESSIONS:
        return nan, nan
    mean, spread = values.mean(), values.std()
    weights = _resamples(len(values))
    means = weights @ values
    variances = weights @ np.square(values - mean) - np.square(means - mean)
    # A resample of one value repeated has no spread of its own.
    away = np.abs(means - mean) / np.sqrt(np.maximum(variances, 1e-12 * spread**2 + 1e-300))
    reach = float(np.quantile(away, CONFIDENCE) * spread)
    return float(mean) - reach, float(mean) + reach


@cache
def _resamples(count: int) -> npt.NDArray[np.float64]:
    """The weight of each value in each resample [resamples, count]."""
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), _RESAMPLES)
    return draws / count
