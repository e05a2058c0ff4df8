"""Second moments of a layer's rows and targets, and what follows from them: the best affine layer, and its error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Matrix = npt.NDArray[np.float64]

# Shares of the mean variance of a feature that are tried as the ridge; the first is next to none.
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
# Solving takes the cube of the number of features: from here on every other ridge is tried.
_MANY_FEATURES = 1024


@dataclass
class Moments:
    """Sums over rows x [groups, n, features] and targets t [groups, n, outputs], all float64.

    Products are taken in float32 of values that the mean of the first batch was taken off, and added up in float64.
    """

    count: int = 0
    x_shift: Array | None = None
    t_shift: Array | None = None
    x: Matrix | float = 0.0
    t: Matrix | float = 0.0
    xx: Matrix | float = 0.0
    xt: Matrix | float = 0.0
    tt: Matrix | float = 0.0

    def update(self, rows: Array, targets: Array) -> None:
        """Add rows and targets."""
        rows, targets = rows.astype(np.float32, copy=False), targets.astype(np.float32, copy=False)
        if self.x_shift is None or self.t_shift is None:
            self.x_shift, self.t_shift = rows.mean(1, keepdims=True), targets.mean(1, keepdims=True)
        rows, targets = rows - self.x_shift, targets - self.t_shift
        turned = rows.transpose(0, 2, 1)
        self.count += rows.shape[1]
        self.x = self.x + rows.sum(1, dtype=np.float64)
        self.t = self.t + targets.sum(1, dtype=np.float64)
        self.xx = self.xx + np.matmul(turned, rows).astype(np.float64)
        self.xt = self.xt + np.matmul(turned, targets).astype(np.float64)
        self.tt = self.tt + np.einsum("gno,gno->go", targets, targets, dtype=np.float64)

    def centered(self) -> Centered:
        """Means and covariances."""
        assert self.x_shift is not None
        assert self.t_shift is not None
        x, t = np.asarray(self.x) / self.count, np.asarray(self.t) / self.count
        return Centered(
            self.count,
            x + self.x_shift[:, 0],
            t + self.t_shift[:, 0],
            np.asarray(self.xx) / self.count - x[:, :, None] * x[:, None, :],
            np.asarray(self.xt) / self.count - x[:, :, None] * t[:, None, :],
            np.asarray(self.tt) / self.count - t**2,
        )


@dataclass(frozen=True)
class Centered:
    """Means and covariances of rows and targets.

    Attributes:
        count: how many rows there were.
        x, t: means, [groups, features] and [groups, outputs].
        xx, xt: covariances, [groups, features, features] and [groups, features, outputs].
        tt: variances of the targets, [groups, outputs].
    """

    count: int
    x: Matrix
    t: Matrix
    xx: Matrix
    xt: Matrix
    tt: Matrix

    def error(self, matrix: Matrix, bias: Matrix) -> float:
        """Mean squared error of rows @ matrix + bias, summed over outputs."""
        spread = self.tt.sum() - 2 * np.sum(matrix * self.xt) + np.sum(matrix * np.matmul(self.xx, matrix))
        offset = np.einsum("gf,gfo->go", self.x, matrix) + bias - self.t
        return float(max(spread, 0.0) + np.sum(offset**2))

    def best_bias(self, matrix: Matrix) -> Matrix:
        """The bias that makes the means agree: [groups, outputs]."""
        bias: Matrix = self.t - np.einsum("gf,gfo->go", self.x, matrix)
        return bias

    def solve(self, start: Matrix, ridge: float) -> Matrix:
        """The matrix of least squared error plus ridge * mean variance * |matrix - start|^2 (Tikhonov).

        The ridge draws towards the weights that are there, not towards zero: with no data it changes nothing.
        """
        features = self.xx.shape[1]
        solved = []
        for xx, xt, now in zip(self.xx, self.xt, start, strict=True):
            strength = ridge * max(float(np.trace(xx)) / features, 1e-30)
            system = xx + strength * np.eye(features)
            solved.append(now + np.linalg.solve(system, xt - xx @ now))
        return np.stack(solved)


def merged(a: Moments, b: Moments) -> Centered:
    """Means and covariances of both sets of rows."""
    one, two = a.centered(), b.centered()
    count = one.count + two.count
    p, q = one.count / count, two.count / count
    dx, dt = one.x - two.x, one.t - two.t
    return Centered(
        count,
        p * one.x + q * two.x,
        p * one.t + q * two.t,
        p * one.xx + q * two.xx + p * q * dx[:, :, None] * dx[:, None, :],
        p * one.xt + q * two.xt + p * q * dx[:, :, None] * dt[:, None, :],
        p * one.tt + q * two.tt + p * q * dt**2,
    )


def pooled(parts: Sequence[Centered]) -> Centered:
    """Covariances of rows of several kinds, each about means of its own; the means come out as zero."""
    first, counts = parts[0], [part.count for part in parts]
    xx, xt, tt = (
        np.average([getattr(part, name) for part in parts], axis=0, weights=counts) for name in ("xx", "xt", "tt")
    )
    return Centered(sum(counts), np.zeros_like(first.x), np.zeros_like(first.t), xx, xt, tt)


def best_ridge(train: Centered, held_out: Centered, start: Matrix) -> float | None:
    """The ridge of least error on held-out rows; None when the weights as they are, with the best bias, do better."""
    errors: dict[float | None, float] = {None: held_out.error(start, train.best_bias(start))}
    for ridge in RIDGES if len(train.x[0]) <= _MANY_FEATURES else RIDGES[::2]:
        try:
            matrix = train.solve(start, ridge)
        except np.linalg.LinAlgError:  # too few rows for so small a ridge
            continue
        errors[ridge] = held_out.error(matrix, train.best_bias(matrix))
    return min(errors, key=lambda ridge: errors[ridge])
