"""OBS with its update beside least squares."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.analysis.sparse_patterns import parse_pattern
from onnxprune.steps.sparsify.surgeon import choose, damped, solve_kept

rng = np.random.default_rng(0)
ROWS = rng.standard_normal((400, 8)) @ rng.standard_normal((8, 8))
HESSIAN = damped((ROWS.T @ ROWS / 400)[None], 1e-4)[0]
WEIGHTS = rng.standard_normal((8, 5))
ALL = np.ones(WEIGHTS.shape, bool)


def error(weights: np.ndarray) -> float:
    off = weights - WEIGHTS
    return float(np.sum(off * (HESSIAN @ off)))


def test_what_stays_is_the_least_squares_solution_on_it() -> None:
    kept = rng.random(WEIGHTS.shape) > 0.5
    found = solve_kept(HESSIAN, HESSIAN @ WEIGHTS, kept)
    root = np.linalg.cholesky(HESSIAN).T
    for output in range(5):
        rows = np.flatnonzero(kept[:, output])
        best, *_ = np.linalg.lstsq(root[:, rows], root @ WEIGHTS[:, output], rcond=None)
        assert found[rows, output] == pytest.approx(best)
    assert not found[~kept].any()


def test_later_features_make_up_for_one_that_goes() -> None:
    """The first feature goes in every output: the rest becomes the best without it, at w^2 / [H^-1]_00."""
    allowed = ALL.copy()
    allowed[0] = False
    found, kept = choose(WEIGHTS, HESSIAN, parse_pattern("none"), 0.0, allowed)
    assert np.array_equal(kept, allowed)
    assert found == pytest.approx(solve_kept(HESSIAN, HESSIAN @ WEIGHTS, allowed))
    assert error(found) == pytest.approx(float(np.square(WEIGHTS[0]).sum() / np.linalg.inv(HESSIAN)[0, 0]))


def test_the_weight_that_costs_least_goes() -> None:
    """Of one block, with its later features to make up for it: the cheapest by trying all of them."""
    found, kept = choose(WEIGHTS[:, :1], HESSIAN, parse_pattern("row"), 1 / 8, ALL[:, :1])
    costs = []
    for feature in range(8):
        free = [feature, *range(feature + 1, 8)]
        block = HESSIAN[np.ix_(free, free)]
        costs.append(np.square(WEIGHTS[feature, 0]) / np.linalg.inv(block)[0, 0])
    assert np.flatnonzero(~kept[:, 0]) == [int(np.argmin(costs))]
    assert found[~kept] == 0


@pytest.mark.parametrize("pattern", ["none", "row", "2:4", "1x4", "channel"])
def test_an_update_beats_zeroing_and_the_pattern_holds(pattern: str) -> None:
    weights = rng.standard_normal((16, 6))
    rows = rng.standard_normal((200, 4)) @ rng.standard_normal((4, 16)) + 0.3 * rng.standard_normal((200, 16))
    hessian = damped((rows.T @ rows / 200)[None], 1e-3)[0]
    chosen = parse_pattern(pattern)
    share = 1 / 3 if pattern == "channel" else 0.5
    found, kept = choose(weights, hessian, chosen, share, np.ones(weights.shape, bool))
    assert (~kept).mean() == pytest.approx(share, abs=0.03)
    assert np.array_equal(found == 0, ~kept)
    zeroed = np.where(chosen.keep(np.abs(weights)[None], share)[0], weights, 0.0)

    def off(other: np.ndarray) -> float:
        return float(np.sum((other - weights) * (hessian @ (other - weights))))

    if pattern != "channel":  # of a whole output nothing is left to make up for it
        assert off(found) < 0.5 * off(zeroed)
    if pattern == "2:4":
        assert (kept.reshape(4, 4, 6).sum(axis=1) == 2).all()


def test_weights_that_are_zero_already_count_among_those_that_go() -> None:
    allowed = ALL.copy()
    allowed[[0, 5]] = False
    _, kept = choose(WEIGHTS, HESSIAN, parse_pattern("2:4"), 0.5, allowed)
    assert not (kept & ~allowed).any()
    assert (kept.reshape(2, 4, 5).sum(axis=1) == 2).all()
