"""How a cut is spread over steps."""

from __future__ import annotations

from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.errors import UsageError
from onnxprune.schedule import SCHEDULES, check, limits, ratios
from onnxprune.targets import parse


@pytest.mark.parametrize("name", SCHEDULES)
@given(ratio=st.floats(0, 0.99), steps=st.integers(1, 20))
def test_steps_add_up_to_the_ratio(name: str, ratio: float, steps: int) -> None:
    found = ratios(ratio, steps, name)
    assert len(found) == steps
    assert all(-1e-9 <= each < 1 for each in found)
    assert prod(1 - each for each in found) == pytest.approx(1 - ratio)


def test_schedules_by_hand() -> None:
    """What is left on the way to 0.2 of 1000, in four steps."""
    asked = [parse("macs=0.2")]
    whole = {"macs": 1000.0}
    assert limits(asked, whole, 4, "linear") == [["macs=800"], ["macs=600"], ["macs=400"], ["macs=200"]]
    assert limits(asked, whole, 4, "cubic") == [["macs=537"], ["macs=300"], ["macs=212"], ["macs=200"]]
    assert limits(asked, whole, 4, "geometric") == [["macs=668"], ["macs=447"], ["macs=299"], ["macs=200"]]
    assert limits([parse("macs=200")], whole, 1, "cubic") == [["macs=200"]]


def test_latency_is_told_against_the_step_before() -> None:
    shares = [parse(texts[0]).limit for texts in limits([parse("latency=0.6")], {}, 3, "linear")]
    assert prod(shares) == pytest.approx(0.6)


@pytest.mark.parametrize("text", ["drop=0.01", "latency=2ms"])
def test_what_cannot_be_reached_in_steps_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cannot be reached in steps"):
        limits([parse(text)], {}, 3, "linear")


@pytest.mark.parametrize(("steps", "name", "message"), [(0, "cubic", "steps 0"), (2, "cubik", "did you mean 'cubic'")])
def test_what_makes_no_sense_is_refused(steps: int, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check(steps, name)
