"""Combinations: what can be written, what is said about what cannot, and ranks against scipy's."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxprune.errors import UsageError
from onnxprune.pipeline.scores import score
from onnxprune.steps.prune.criteria.base import criteria
from onnxprune.steps.prune.criteria.expression import parse_expression, ranks, resolve_criterion


@pytest.mark.parametrize(
    ("expression", "terms"),
    [
        ("l1+random", [(1, "l1"), (1, "random")]),
        ("l1*0.7+random*0.3", [(0.7, "l1"), (0.3, "random")]),
        (" l1 * .5 - random * 2. ", [(0.5, "l1"), (-2, "random")]),
        ("l1*2-random", [(2, "l1"), (-1, "random")]),
        ("-l1+l2+l1", [(-1, "l1"), (1, "l2"), (1, "l1")]),
        ("+l1", [(1, "l1")]),
        ("bn-scale-0", None),
        ("geometric-median - bn-scale*3", [(1, "geometric-median"), (-3, "bn-scale")]),
    ],
)
def test_grammar(expression: str, terms: list[tuple[float, str]] | None) -> None:
    if terms is None:
        with pytest.raises(UsageError):
            parse_expression(expression)
    else:
        assert parse_expression(expression) == terms


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("", "expected the name of a criterion at position 1, but it ends there"),
        ("l1+", "expected the name of a criterion at position 4, but it ends there"),
        ("l1++l2", "expected the name of a criterion at position 4, found '+l2'"),
        ("l1*x", "expected a number at position 4, found 'x'"),
        ("l1*", "expected a number at position 4, but it ends there"),
        ("l1*-2", "expected a number at position 4, found '-2'"),
        ("0.5*l1", "expected the name of a criterion at position 1, found '0.5*l1'"),
        ("l1 l2", "expected + or - at position 4, found 'l2'"),
        ("l1*2*3", "expected + or - at position 5, found '*3'"),
        ("l1/2+l2", "expected + or - at position 3, found '/2+l2'"),
        ("l1+l9", "unknown criterion 'l9'; did you mean"),
        ("L1", "unknown criterion 'L1'; did you mean 'l1'"),
        ("l1-random", "unknown criterion 'l1-random'; if the dash is a minus, put spaces around it"),
        ("bn_scale*2", "unknown criterion 'bn_scale'; did you mean 'bn-scale'"),
    ],
)
def test_what_does_not_belong_is_named_with_its_place(expression: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        resolve_criterion(expression)


def test_a_name_is_the_criterion_itself() -> None:
    assert resolve_criterion("l1") is criteria["l1"]
    assert resolve_criterion(" bn-scale ") is criteria["bn-scale"]


def test_what_a_combination_needs_and_states_is_the_union() -> None:
    found = resolve_criterion("random*2+l1+l2")
    assert found.needs == ("weights",)
    assert resolve_criterion("random + random").needs == ()
    assert found.cost == "nothing; one read of the weights"
    assert all(criteria[name].source in found.source for name in ("random", "l1", "l2"))
    assert found.comparable


@settings(deadline=None)  # the first import of scipy takes a while
@given(hnp.arrays(np.float64, st.integers(2, 30), elements=st.integers(-3, 3) | st.floats(-1e9, 1e9)))
def test_ranks_are_those_of_scipy(scores: np.ndarray) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = (stats.rankdata(scores, method="average") - 1) / (len(scores) - 1)
    np.testing.assert_allclose(ranks(scores), expected, atol=1e-12)


def test_one_unit_has_rank_0() -> None:
    np.testing.assert_array_equal(ranks(np.array([7.0])), [0])


def test_scores_of_a_combination(digits: dict[str, Path]) -> None:
    l1, random = score(digits["lstm"], "l1", seed=3), score(digits["lstm"], "random", seed=3)
    for group, values in score(digits["lstm"], "l1*0.7 - random*0.2", seed=3).items():
        np.testing.assert_allclose(values, 0.7 * ranks(l1[group]) - 0.2 * ranks(random[group]))


def test_minus_turns_a_ranking_round(digits: dict[str, Path]) -> None:
    plain, turned = score(digits["lstm"], "l1"), score(digits["lstm"], "-l1")
    for group, values in plain.items():
        np.testing.assert_array_equal(np.argsort(turned[group]), np.argsort(-values))
