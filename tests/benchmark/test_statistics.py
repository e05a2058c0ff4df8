"""False alarms and misses on simulated noise that is as unpleasant as a shared machine's, and what is said in words."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.signal
import scipy.stats

from onnxprune.evaluation.benchmark.comparison import CONFIDENCE, Comparison, compare, interval, session_log_ratios
from onnxprune.runtime.latency import SESSIONS, Latency, Setting


def simulated(slowdown: float, rng: np.random.Generator, rounds: int = 40) -> tuple[Latency, Latency]:
    """Two models in rounds of one machine, the second slower by a factor.

    Log seconds are the sum of: the machine's load (autocorrelated, the same for both), where the session's memory lies
    (0.7%), and each run's own noise: 2% with tails of infinite variance, and every tenth run preempted.
    """
    count = SESSIONS * rounds
    load = scipy.signal.lfilter([0.03], [1, -0.98], rng.standard_normal(count))
    sessions = tuple(np.repeat(np.arange(SESSIONS), rounds).tolist())

    def model(factor: float) -> Latency:
        memory = np.repeat(0.007 * rng.standard_normal(SESSIONS), rounds)
        own = 0.02 * rng.standard_t(2, count) + rng.binomial(1, 0.1, count) * rng.exponential(1.0, count)
        seconds = 0.003 * factor * np.exp(load + memory + own)
        return Latency("m", Setting(), tuple(seconds.tolist()), sessions, (), (0.1,) * SESSIONS, {})

    return model(1.0), model(slowdown)


def share_real(slowdown: float, tries: int = 400) -> float:
    rng = np.random.default_rng(0)
    return float(np.mean([compare(*simulated(slowdown, rng)).real for _ in range(tries)]))


def test_false_alarms_are_as_rare_as_promised() -> None:
    """Of twenty tries at most one false alarm, with a probability of 95% or more."""
    rate = share_real(1.0)
    assert scipy.stats.binom.cdf(1, 20, rate) > 0.95, rate


@pytest.mark.parametrize("slowdown", [1.05, 1 / 1.05])
def test_five_percent_are_found(slowdown: float) -> None:
    """Of twenty tries at least sixteen, with a probability of 95% or more."""
    rate = share_real(slowdown, tries=100)
    assert scipy.stats.binom.sf(15, 20, rate) > 0.95, rate


def test_runs_alone_would_raise_false_alarms() -> None:
    """The simulation is a hard one: taking the runs as independent finds differences that are none."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(100):
        first, other = simulated(1.0, rng, rounds=150)
        logs = np.log(np.array(other.seconds) / np.array(first.seconds))
        low, high = scipy.stats.mstats.median_cihs(logs, 1 - CONFIDENCE)
        alarms += low > 0 or high < 0
    assert alarms > 10


def test_interval_holds_the_truth_as_often_as_promised() -> None:
    rng = np.random.default_rng(1)
    held = []
    for values in rng.standard_normal((400, SESSIONS)):
        low, high = interval(values)
        held.append(low <= 0 <= high)
    assert np.mean(held) >= 0.97


def test_the_ratio_is_that_of_pairs_by_session() -> None:
    first = Latency("a", Setting(), (1.0, 2.0, 4.0, 1.0), (0, 0, 0, 1), (), (), {})
    other = Latency("b", Setting(), (2.0, 4.0, 400.0, 8.0), (0, 0, 0, 1), (), (), {})
    assert session_log_ratios(first, other) == pytest.approx([math.log(2), math.log(8)])
    assert compare(first, other).ratio == pytest.approx(4)
    assert compare(other, first).ratio == pytest.approx(1 / 4)


def test_processor_time_is_compared_where_both_have_it() -> None:
    first = Latency("a", Setting(), (1.0, 1.0), (0, 1), (1.0, 1.0), (), {})
    other = Latency("b", Setting(), (5.0, 7.0), (0, 1), (2.0, 2.0), (), {})
    without = Latency("c", Setting(), (5.0, 5.0), (0, 1), (), (), {})
    assert compare(first, other).ratio == pytest.approx(2)
    assert compare(first, without).ratio == pytest.approx(5)


def test_the_same_numbers_give_the_same_interval() -> None:
    pair = simulated(1.01, np.random.default_rng(3))
    assert compare(*pair) == compare(*pair)


@pytest.mark.parametrize(
    ("comparison", "real", "words"),
    [
        (Comparison(0.7634, 0.7407, 0.7874), True, "1.31x faster (1.27 to 1.35)"),
        (Comparison(2.0, 1.9, 2.1), True, "2.00x slower (1.90 to 2.10)"),
        (Comparison(0.96, 0.95, 0.97), True, "1.042x faster (1.031 to 1.053)"),
        (Comparison(1.05, 1.02, 1.08), True, "1.050x slower (1.020 to 1.080)"),
        (Comparison(1.001, 0.99, 1.02), False, "no real difference (0.980x to 1.010x as fast)"),
        (Comparison(1.013, 1.006, 1.02), False, "no real difference (0.980x to 0.994x as fast)"),
        (Comparison(0.987, 0.98, 0.995), False, "no real difference (1.005x to 1.020x as fast)"),
        (Comparison(1.5, 0.5, 2.0), False, "no real difference (0.500x to 2.000x as fast: too noisy to tell more)"),
        (Comparison(1.5, math.nan, math.nan), False, "measured too seldom to tell (it took 1.50 times as long)"),
    ],
)
def test_words(comparison: Comparison, real: bool, words: str) -> None:
    assert (comparison.real, comparison.words) == (real, words)


def test_too_few_sessions_tell_nothing() -> None:
    assert all(math.isnan(end) for end in interval(np.zeros(7)))
    assert interval(np.zeros(8)) == (0, 0)
