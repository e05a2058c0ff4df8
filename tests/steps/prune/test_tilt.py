"""Tilts bend the cut that an allocation decides: by depth, by kind, and never beyond what may go."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.analysis.inspect import inspect
from onnxprune.errors import UsageError
from onnxprune.steps.prune.options import PruneOptions
from onnxprune.steps.prune.planner import planner
from onnxprune.steps.prune.tilt import tilted, tilts_of
from tests.conftest import Build

NET = """
    net (float[batch, 4] x) => (float[batch, 3] y)
    <float[4, 32] a, float[32, 32] b, float[32, 32] c, float[32, 3] d>
    { h = MatMul(x, a)  r = Relu(h)  k = MatMul(r, b)  s = Relu(k)  m = MatMul(s, c)  t = Relu(m)  y = MatMul(t, d) }
"""


def lost(build: Build, t: float, **options: object) -> list[int]:
    """What each of the three groups of 32 units loses at strength t, first to last."""
    analysis = inspect(build(NET))
    scores = {group.id: np.arange(1.0, group.units + 1) for group in analysis.groups}
    found = planner(analysis, analysis.groups, scores, PruneOptions(scope="uniform", **options)).lost(t)  # type: ignore[arg-type]
    return [found[group.id] for group in analysis.groups]


def test_without_a_tilt_the_cut_is_that_of_the_allocation(build: Build) -> None:
    assert lost(build, 0.5) == lost(build, 0.5, tilt=(0.0, 0.0, 0.0)) == [16, 16, 16]


def test_one_squares_the_share_that_is_kept_and_minus_one_takes_its_root(build: Build) -> None:
    first, middle, last = lost(build, 0.5, tilt=(1.0, -1.0))
    kept = 1 - 16 / 31
    assert first == round(31 * (1 - kept**2))
    assert middle == 16
    assert last == round(31 * (1 - kept**0.5))


def test_the_curve_runs_straight_between_its_numbers(build: Build) -> None:
    analysis = inspect(build(NET))
    found = list(tilts_of(analysis, analysis.groups, PruneOptions(tilt=(0.0, 2.0))).values())
    assert found == pytest.approx([0.0, 1.0, 2.0])
    assert list(tilts_of(analysis, analysis.groups, PruneOptions(tilt=(0.5,))).values()) == [0.5] * 3


def test_patterns_add_to_the_depth_and_the_last_decides(build: Build) -> None:
    analysis = inspect(build(NET))
    options = PruneOptions(tilt=(1.0, 1.0), tilts={"neurons": 1.0, analysis.groups[0].id: -1.0})  # type: ignore[arg-type]
    assert list(tilts_of(analysis, analysis.groups, options).values()) == [0.0, 2.0, 2.0]
    with pytest.raises(UsageError, match="nothing in this model matches"):
        tilts_of(analysis, analysis.groups, PruneOptions(tilts={"haeds": 1.0}))  # type: ignore[arg-type]


def test_a_higher_strength_never_removes_fewer_and_the_ends_stay() -> None:
    family = tilted(lambda t: {"a": round(31 * t)}, {"a": 31}, {"a": 1.7})
    steps = [family(t)["a"] for t in np.linspace(0, 1, 40)]
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (0, 31)
