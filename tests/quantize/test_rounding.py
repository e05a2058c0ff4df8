"""Rounding, against a search of all integers, and against rounding to nearest."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from onnxprune.steps.quantize.grids import grid_of, largest_integer, scales_of, to_integers
from onnxprune.steps.quantize.rounding import _DAMPING, _descended, round_matrix


def problem(seed: int, features: int, outputs: int, rows: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """A matrix, and the Gram matrix of features that depend on each other."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, features)) @ rng.standard_normal((features, features))
    return rng.standard_normal((features, outputs)), x.T @ x / rows


def change(gram: np.ndarray, matrix: np.ndarray, integers: np.ndarray, scales: np.ndarray) -> float:
    """What the outputs change by, written out."""
    off = integers * scales - matrix
    return float(sum(column @ gram @ column for column in off.T))


def test_the_integers_are_nearly_the_best_of_all() -> None:
    """Of 3 bits for 4 weights all 7^4 choices are tried, at the scale that was found."""
    lost, gained = 0.0, 0.0
    for seed in range(8):
        matrix, gram = problem(seed, 4, 1)
        integers, scales = round_matrix(matrix[None], gram[None], 3)
        found = change(gram, matrix, integers[0], scales[0])
        choices = (np.array(each, float)[:, None] for each in product(range(-3, 4), repeat=4))
        best = min(change(gram, matrix, each, scales[0]) for each in choices)
        nearest = change(gram, matrix, np.clip(np.rint(matrix / scales[0]), -3, 3), scales[0])
        assert best - 1e-9 <= found <= nearest + 1e-9
        lost, gained = lost + found - best, gained + nearest - best
    assert lost < 0.25 * gained


@pytest.mark.parametrize("bits", [3, 4, 7])
def test_outputs_change_less_than_with_the_nearest_integers(bits: int) -> None:
    matrix, gram = problem(1, 150, 12, rows=600)  # more features than a block
    integers, scales = round_matrix(matrix[None], gram[None], bits)
    plain = scales_of(matrix[None], bits)
    nearest = change(gram, matrix, to_integers(matrix[None], plain, bits)[0], plain[0])
    assert change(gram, matrix, integers[0], scales[0]) < 0.5 * nearest
    assert np.abs(integers).max() <= largest_integer(bits)
    assert np.array_equal(integers, np.rint(integers))


def test_no_single_integer_is_worth_moving() -> None:
    matrix, gram = problem(2, 70, 3)
    damped = gram + _DAMPING * np.trace(gram) / 70 * np.eye(70)
    scales = scales_of(matrix[None], 4)[0]
    integers = _descended(to_integers(matrix[None], scales[None], 4)[0], matrix, damped, scales, 4)
    least = change(damped, matrix, integers, scales)
    for at in np.ndindex(integers.shape):
        for step in (-1, 1):
            moved = integers.copy()
            moved[at] += step
            if abs(moved[at]) <= 7:
                assert change(damped, matrix, moved, scales) >= least - 1e-9


def test_features_that_never_vary_and_groups() -> None:
    """Each group is rounded by its own features; a dead one does no harm."""
    first, second = problem(3, 5, 2), problem(4, 5, 2)
    second[1][2], second[1][:, 2] = 0, 0
    both = round_matrix(np.stack([first[0], second[0]]), np.stack([first[1], second[1]]), 4)
    alone = round_matrix(second[0][None], second[1][None], 4)
    assert np.isfinite(both[0]).all()
    assert np.array_equal(both[0][1], alone[0][0])
    assert np.array_equal(both[1][1], alone[1][0])


def test_scales_are_as_large_as_the_floor() -> None:
    matrix, gram = problem(5, 6, 3)
    floor = np.array([[10.0, 1e-12, 1e-12]])
    _, scales = round_matrix(matrix[None], gram[None], 7, floor)
    assert scales[0, 0] == 10.0
    assert (scales[0, 1:] < 1).all()


@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-1.0, 3.0), (0.5, 2.0), (-2.0, -1.0)])
@pytest.mark.parametrize("signed", [False, True])
def test_a_grid_holds_zero_and_its_range(low: float, high: float, signed: bool) -> None:
    grid = grid_of(low, high, signed=signed)
    values = np.linspace(min(low, 0), max(high, 0), 1000, dtype=np.float32)
    assert np.abs(grid.rounded(values) - values).max() <= grid.scale * 1.01
    assert grid.rounded(np.zeros(1, np.float32))[0] == 0
    assert (-128 if signed else 0) <= grid.zero <= (127 if signed else 255)
