"""From scores and a ratio to the number of units that each group loses, and which ones."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxprune.allocation.base import allocations, share, weakest

SCOPES = allocations.names()

SCORES = st.dictionaries(
    st.text("abc", min_size=1, max_size=3),
    hnp.arrays(np.float64, st.integers(2, 12), elements=st.floats(0, 1e6)),
    min_size=1,
    max_size=5,
)
RATIOS = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("ratio", "units", "lost"),
    [
        (0.3, 10, 3),  # although 0.3 * 10 is less than 3 in floating point, and 0.1 * 3 more than 0.3
        (0.1, 30, 3),
        (0.7, 10, 7),
        (0.29, 100, 29),
        (0.5, 7, 3),  # rounded down
        (0.0, 8, 0),
        (0.1, 8, 0),
        (0.99, 8, 7),
        (0.999999, 2, 1),  # never the last one
        (0.9, 1, 0),
    ],
)
def test_share(ratio: float, units: int, lost: int) -> None:
    assert share(ratio, units) == lost


@given(st.integers(0, 999), st.integers(1, 5_000))
def test_share_is_exact_for_decimal_ratios(thousandths: int, units: int) -> None:
    exact = Fraction(thousandths, 1000) * units
    assert share(thousandths / 1000, units) == min(int(exact), units - 1)


def test_weakest_drops_the_lowest_scores() -> None:
    np.testing.assert_array_equal(weakest(np.array([3.0, 1.0, 2.0, 0.5]), 2), [True, False, True, False])
    assert weakest(np.array([3.0, 1.0]), 0).all()


def test_ties_go_in_order() -> None:
    np.testing.assert_array_equal(weakest(np.ones(5), 2), [False, False, True, True, True])


def test_uniform_takes_the_ratio_of_each_group() -> None:
    scores = {"a": np.arange(10.0), "b": np.arange(4.0) + 100, "c": np.arange(3.0)}
    assert allocations["uniform"](scores, 0.5) == {"a": 5, "b": 2, "c": 1}
    assert allocations["uniform"](scores, 0.0) == {"a": 0, "b": 0, "c": 0}


def test_global_takes_from_groups_with_weak_units() -> None:
    """Three of b's units are far below its mean, all of a's are at theirs."""
    scores = {"a": np.array([1.0, 1.0, 1.0, 1.1]), "b": np.array([0.1, 0.1, 0.1, 9.0])}
    assert allocations["global"](scores, 0.375) == {"a": 0, "b": 3}


def test_global_does_not_see_the_scale_of_a_group() -> None:
    values = np.array([0.2, 0.4, 0.6, 0.8, 3.0])
    for scale in (1e-6, 1.0, 1e6):
        lost = allocations["global"]({"a": values, "b": scale * values}, 0.4)
        assert lost == {"a": 2, "b": 2}


def test_global_breaks_ties_in_the_order_of_groups() -> None:
    scores = {name: np.ones(4) for name in "abc"}
    assert allocations["global"](scores, 0.25) == {"a": 3, "b": 0, "c": 0}


def test_groups_without_any_weight_are_taken_first_and_keep_one_unit() -> None:
    assert allocations["global"]({"dead": np.zeros(4), "b": np.arange(1.0, 5.0)}, 0.375) == {"dead": 3, "b": 0}


@pytest.mark.parametrize("scope", SCOPES)
@given(scores=SCORES, ratio=RATIOS)
def test_no_group_loses_its_last_unit_or_more_than_the_ratio_in_all(scope: str, scores, ratio: float) -> None:
    lost = allocations[scope](scores, ratio)
    assert set(lost) == set(scores)
    assert all(0 <= lost[group] < len(values) for group, values in scores.items())
    assert sum(lost.values()) <= ratio * sum(map(len, scores.values())) + 1e-6


@given(scores=SCORES, ratio=RATIOS)
def test_global_reaches_the_ratio_unless_single_units_are_left(scores, ratio: float) -> None:
    total = sum(map(len, scores.values()))
    lost = sum(allocations["global"](scores, ratio).values())
    assert lost == min(share(ratio, total), total - len(scores))


@pytest.mark.parametrize("scope", SCOPES)
@given(scores=SCORES, ratio=RATIOS)
def test_a_higher_ratio_never_takes_less(scope: str, scores, ratio: float) -> None:
    low, high = (allocations[scope](scores, each) for each in (ratio / 2, ratio))
    assert all(low[group] <= high[group] for group in scores)
