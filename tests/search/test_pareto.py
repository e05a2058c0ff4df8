"""Dominance, fronts and hypervolumes against known answers."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.pipeline.search.pareto import dominated_by, dominates, front, hypervolume


def test_dominance() -> None:
    assert dominates((1, 2), (1, 3))
    assert not dominates((1, 2), (1, 2))
    assert not dominates((0, 3), (1, 2))
    assert dominated_by((2, 2), [(1, 1), (2, 2), (2, 1), (3, 0)]) == 2


def test_the_front_is_in_order_and_holds_equal_points_once() -> None:
    assert front([(3, 0), (1, 2), (2, 2), (1, 2), (2, 1)]) == [1, 4, 0]


def test_hypervolume_is_the_area_that_is_dominated() -> None:
    assert hypervolume([(0.5, 0.5)], (1, 1)) == pytest.approx(0.25)
    assert hypervolume([(0.2, 0.8), (0.6, 0.3), (0.7, 0.9), (2, 0)], (1, 1)) == pytest.approx(0.8 * 0.2 + 0.4 * 0.5)
    random = np.random.default_rng(0)
    points, grid = random.uniform(0, 1.2, (9, 2)), (np.arange(400) + 0.5) / 400
    x, y = np.meshgrid(grid, grid)
    covered = np.any([(x >= a) & (y >= b) for a, b in points], axis=0).mean()
    assert hypervolume([tuple(point) for point in points], (1, 1)) == pytest.approx(covered, abs=0.01)
