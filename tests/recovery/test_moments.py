"""Moments against numpy on the rows themselves, and solutions against lstsq and scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import Ridge

from onnxprune.steps.recover.least_squares import (
    RIDGES,
    Centered,
    KnownPart,
    KnownRows,
    Moments,
    Products,
    best_ridge,
    merged,
    pooled,
    pooled_together,
)

GROUPS, ROWS, FEATURES, OUTPUTS = 2, 200, 5, 3
Matrix = npt.NDArray[np.float64]


def sample(seed: int = 0, rows: int = ROWS, noise: float = 0.1) -> tuple[Matrix, Matrix, Matrix]:
    """Rows far from zero, targets near an affine map of them, and the map's matrix."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((GROUPS, rows, FEATURES)) @ rng.standard_normal((FEATURES, FEATURES)) + 30
    matrix = np.random.default_rng(7).standard_normal((GROUPS, FEATURES, OUTPUTS))
    return x, x @ matrix - 20 + noise * rng.standard_normal((GROUPS, rows, OUTPUTS)), matrix


def gathered(x: Matrix, t: Matrix, parts: int = 3) -> Moments:
    moments = Moments()
    for rows, targets in zip(np.array_split(x, parts, axis=1), np.array_split(t, parts, axis=1), strict=True):
        moments.update(rows, targets)
    return moments


def of_rows(x: Matrix, t: Matrix) -> Centered:
    xc, tc = x - x.mean(1, keepdims=True), t - t.mean(1, keepdims=True)
    turned = xc.transpose(0, 2, 1)
    n = x.shape[1]
    return Centered(n, x.mean(1), t.mean(1), turned @ xc / n, turned @ tc / n, (tc**2).mean(1))


def assert_same(given: KnownPart, two: Centered) -> None:
    one = given.covariances()
    assert one.count == two.count
    for name in ("x", "t", "xx", "xt", "tt"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-4, atol=1e-4, err_msg=name)


def test_moments_are_those_of_all_rows() -> None:
    x, t, _ = sample()
    assert_same(gathered(x, t).known(), of_rows(x, t))


def test_merged_are_those_of_both() -> None:
    (x, t, _), (u, s, _) = sample(0), sample(1, rows=77)
    assert_same(
        merged(gathered(x, t).known(), gathered(u, s).known()),
        of_rows(np.concatenate([x, u], 1), np.concatenate([t, s], 1)),
    )


def test_error_is_that_of_the_rows() -> None:
    x, t, matrix = sample()
    wrong, bias = matrix + 0.1, np.ones((GROUPS, OUTPUTS))
    due = ((x @ wrong + bias[:, None] - t) ** 2).mean(1).sum()
    assert gathered(x, t).known().error(wrong, bias) == pytest.approx(due, rel=1e-4)


def test_solution_without_a_ridge_is_least_squares() -> None:
    x, t, matrix = sample()
    moments = gathered(x, t).known()
    found = moments.solve(np.zeros_like(matrix), 0.0)
    bias = moments.best_bias(found)
    for group in range(GROUPS):
        design = np.hstack([x[group], np.ones((ROWS, 1))])
        due = np.linalg.lstsq(design, t[group], rcond=None)[0]
        np.testing.assert_allclose(found[group], due[:-1], atol=1e-3)
        np.testing.assert_allclose(bias[group], due[-1], atol=5e-2)


@pytest.mark.parametrize("ridge", [1e-2, 1.0])
def test_solution_with_a_ridge_is_that_of_the_difference(ridge: float) -> None:
    """Drawing towards a start is a ridge on the distance from it."""
    x, t, matrix = sample()
    start = matrix + 0.5
    found = gathered(x, t).known().solve(start, ridge)
    for group in range(GROUPS):
        strength = ridge * np.trace(np.cov(x[group].T, bias=True)) / FEATURES * ROWS
        fit = Ridge(alpha=strength).fit(x[group], t[group] - x[group] @ start[group])
        np.testing.assert_allclose(found[group] - start[group], fit.coef_.T, rtol=1e-3, atol=1e-3)


def test_constant_features_change_nothing() -> None:
    x, t, matrix = sample()
    x[:] = 3.0
    found = gathered(x, t).known().solve(matrix, 1e-3)
    np.testing.assert_allclose(found, matrix)


def test_ridge_is_small_for_clean_targets_and_large_for_few_noisy_rows() -> None:
    x, t, matrix = sample(noise=1e-3)
    y, s, _ = sample(1, noise=1e-3)
    assert best_ridge(of_rows(x, t), of_rows(y, s), np.zeros_like(matrix)) == RIDGES[0]
    x, t, matrix = sample(rows=FEATURES + 2, noise=50)
    y, s, _ = sample(1, noise=50)
    chosen = best_ridge(of_rows(x, t), of_rows(y, s), matrix)
    assert chosen is None or chosen >= 1e-3


def test_weights_that_are_right_stay_without_a_solution() -> None:
    x, t, matrix = sample(rows=FEATURES + 2, noise=10)
    y, s, _ = sample(1, rows=2000, noise=10)
    assert best_ridge(of_rows(x, t), of_rows(y, s), matrix) is None


@pytest.mark.parametrize("centered", [True, False], ids=["about their means", "about zero"])
def test_layers_that_share_a_weight_share_their_products(centered: bool) -> None:
    """One sum for all of them gives what the rows of each, about its own means or as they are, give together."""
    sets = [[sample(seed + number, rows)[:2] for seed, rows in ((0, 90), (4, 40), (6, 3))] for number in (0, 1)]
    readers = []
    for parts in sets:
        products = Products()
        readers.append([Moments(products) for _ in parts])
        for moments, part in zip(readers[-1], parts, strict=True):
            for rows, targets in zip(*(np.array_split(array, 2, axis=1) for array in part), strict=True):
                moments.update(rows, targets)
        assert all(each.products is products for each in readers[-1])
        assert_same(pooled(readers[-1], [centered] * 3), raw(parts, centered))
    both = [tuple(np.concatenate(arrays, 1) for arrays in zip(*pair, strict=True)) for pair in zip(*sets, strict=True)]
    assert_same(pooled_together(*readers, [centered] * 3), raw(both, centered))


def raw(parts: Sequence[tuple[Matrix, Matrix]], centered: bool) -> Centered:
    """Moments of rows about the means of their part, or about zero."""
    means = [[array.mean(1, keepdims=True) * centered for array in part] for part in parts]
    x, t = (
        np.concatenate([part[i] - mean[i] for part, mean in zip(parts, means, strict=True)], axis=1) for i in (0, 1)
    )
    turned, n = x.transpose(0, 2, 1), x.shape[1]
    zero = of_rows(x, t)
    return Centered(n, 0 * zero.x, 0 * zero.t, turned @ x / n, turned @ t / n, (t**2).mean(1))


def wide(seed: int, rows: int) -> tuple[Matrix, Matrix]:
    """More features than rows."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((GROUPS, rows, 23)) + 30, rng.standard_normal((GROUPS, rows, OUTPUTS)) - 20


def test_few_rows_are_kept_and_say_the_same_as_their_covariances() -> None:
    (x, t), (u, s) = wide(0, 17), wide(1, 5)
    rng = np.random.default_rng(2)
    matrix, bias = rng.standard_normal((GROUPS, 23, OUTPUTS)), rng.standard_normal((GROUPS, OUTPUTS))
    found = merged(gathered(x, t).known(), gathered(u, s).known())
    due = of_rows(np.concatenate([x, u], 1), np.concatenate([t, s], 1))
    assert isinstance(found, KnownRows)
    assert_same(found, due)
    assert found.error(matrix, bias) == pytest.approx(due.error(matrix, bias), rel=1e-4)
    np.testing.assert_allclose(found.spread(matrix), due.spread(matrix), rtol=1e-4)
    np.testing.assert_allclose(found.target_variance(), due.target_variance(), rtol=1e-4)
    for ridge in (1e-3, 1.0):
        np.testing.assert_allclose(found.solve(matrix, ridge), due.solve(matrix, ridge), rtol=1e-3, atol=1e-3)


def test_few_rows_beside_many_are_merged_as_covariances() -> None:
    (x, t), (u, s) = wide(0, 70), wide(1, 5)
    assert isinstance(gathered(u, s).known(), KnownRows)
    assert isinstance(gathered(x, t).known(), Centered)
    found = merged(gathered(x, t).known(), gathered(u, s).known())
    assert_same(found, of_rows(np.concatenate([x, u], 1), np.concatenate([t, s], 1)))


def test_rows_that_are_not_finite_are_told() -> None:
    x, t = wide(0, 17)
    x[0, 3, 4] = np.nan
    assert not gathered(x, t).known().is_finite()
