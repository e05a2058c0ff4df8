"""The decorator that registers a criterion, and what is known of one."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.analysis.groups import Group
from onnxprune.steps.prune.criteria import base
from onnxprune.steps.prune.criteria.base import Criterion, Scores, ScoringContext, criteria, criterion
from onnxprune.support.registry import Registry


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> Registry[str, Criterion]:
    """A registry of its own, over a package that registers nothing."""
    registry: Registry[str, Criterion] = Registry("criterion", "onnxprune.support", "onnxprune.nothing")
    monkeypatch.setattr(base, "criteria", registry)
    return registry


def ones(group: Group, context: ScoringContext) -> Scores:
    """All units are equal.

    More of it.
    """
    return np.ones(group.units)


def test_plain_decorator_needs_weights_only(empty: Registry[str, Criterion]) -> None:
    assert criterion("ones")(ones) is ones
    found = empty["ones"]
    assert (found.name, found.score, found.needs, found.comparable) == ("ones", ones, ("weights",), False)
    assert found.summary == "All units are equal."
    assert not found.needs_data


def test_what_is_said_is_kept(empty: Registry[str, Criterion]) -> None:
    criterion("ones", needs=("activations", "labels"), cost="one pass", source="A et al. 2020", comparable=True)(ones)
    found = empty["ones"]
    assert (found.needs, found.cost, found.source) == (("activations", "labels"), "one pass", "A et al. 2020")
    assert found.comparable
    assert found.needs_data


@pytest.mark.parametrize("name", ["", "L1", "1l", "a_b", "a+b", "a*2", "a--b", "a-", "a-1", "a b"])
def test_name_that_could_not_stand_in_a_combination_is_refused(empty: Registry[str, Criterion], name: str) -> None:
    with pytest.raises(ValueError, match="words of small letters and digits"):
        criterion(name)


def test_unknown_need_is_refused(empty: Registry[str, Criterion]) -> None:
    with pytest.raises(ValueError, match="needs 'activation', which is none of: weights, activations,"):
        criterion("ones", needs=("activation",))


def test_name_that_is_taken_is_refused() -> None:
    criteria.names()
    with pytest.raises(ValueError, match="criterion 'l1' is registered twice"):
        criterion("l1")(ones)
