"""How a cut is spread over steps."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.errors import UsageError
from onnxprune.steps.prune.schedule import SCHEDULES, check_schedule_targets, on_the_way, ratio
from onnxprune.steps.prune.targets import parse_target


@pytest.mark.parametrize("name", SCHEDULES)
@given(whole=st.floats(0, 0.99), steps=st.integers(1, 20))
def test_steps_rise_to_the_ratio_and_end_at_it(name: str, whole: float, steps: int) -> None:
    found = [ratio(whole, step / steps, name) for step in range(1, steps + 1)]
    assert all(-1e-9 <= each <= whole + 1e-9 for each in found)
    assert all(after >= before - 1e-9 for before, after in pairwise(found))
    assert found[-1] == whole


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("linear", [0.8, 0.6, 0.4]),
        ("cubic", [0.2 + 0.8 * 27 / 64, 0.3, 0.2 + 0.8 / 64]),
        ("geometric", [0.2**0.25, 0.2**0.5, 0.2**0.75]),
    ],
)
def test_schedules_by_hand(name: str, left: list[float]) -> None:
    """What is left on the way to a fifth, in four steps: as a share, in MACs, in bytes; a drop holds at the end."""
    asked = [parse_target("params=0.2"), parse_target("macs=200"), parse_target("size=0.4kB"), parse_target("drop=0.1")]
    original = {"macs": 1000.0, "size": 2000.0}
    for step, due in enumerate(left, 1):
        found = [parse_target(text) for text in on_the_way(asked, original, step / 4, name)]
        assert [(target.kind, target.relative) for target in found] == [
            ("params", True),
            ("macs", True),
            ("size", True),
        ]
        assert [target.limit for target in found] == pytest.approx([due] * 3)
    assert on_the_way(asked, original, 1.0, name) == ["params=0.2", "macs=200", "size=0.4kB", "drop=0.1"]


def test_what_is_met_from_the_start_stays_met() -> None:
    assert on_the_way([parse_target("macs=5M")], {"macs": 1e6}, 0.5, "cubic") == ["macs=1.0"]


def test_a_drop_alone_cannot_be_spread() -> None:
    with pytest.raises(UsageError, match=r"target 'drop=0\.01' alone does not say how far the steps go"):
        check_schedule_targets([parse_target("drop=0.01")])
    check_schedule_targets([parse_target("drop=0.01"), parse_target("macs=0.5")])
    check_schedule_targets([])
