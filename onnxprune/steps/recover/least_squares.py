"""Second moments of a layer's rows and targets, and what follows from them: the best affine layer, and its error.

Of fewer rows than features the rows themselves are kept: they are smaller than their covariance, and so is the system
to solve.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.statistics.precision import MANY_FEATURES, add_outer, products_type

Array = npt.NDArray[Any]
Matrix = npt.NDArray[np.float64]

# Shares of the mean variance of a feature that are tried as the ridge; the first is next to none.
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
# Of more than MANY_FEATURES every other ridge is tried: what float32 costs the smallest ones lose on held-out rows.


@dataclass
class Products:
    """Sums over rows x [groups, n, features] and targets t [groups, n, outputs] of their products.

    Those of features with each other are of `products_type`, all others float64. Products are taken in float32, and not
    before there are more rows than features. Layers that share a weight share one of these: it takes the square of
    their features in memory.
    """

    rows: int = 0
    xx: Matrix | float = 0.0
    xt: Matrix | float = 0.0
    tt: Matrix | float = 0.0
    waiting: list[tuple[Array, Array]] = field(default_factory=list)

    def update(self, rows: Array, targets: Array) -> None:
        """Add rows and targets, about a shift of their own."""
        self.rows += rows.shape[1]
        self.waiting.append((rows, targets))
        if self.rows > rows.shape[2]:
            self.multiply()

    def multiply(self) -> None:
        """Take the products of all rows that wait for it."""
        for rows, targets in self.waiting:
            transposed = rows.transpose(0, 2, 1)
            xx = np.matmul(transposed, rows)
            if isinstance(self.xx, float):
                self.xx = xx.astype(products_type(rows.shape[2]), copy=False)
            else:
                self.xx += xx
            self.xt = self.xt + np.matmul(transposed, targets).astype(np.float64)
            self.tt = self.tt + np.einsum("gno,gno->go", targets, targets, dtype=np.float64)
        self.waiting.clear()


@dataclass
class Moments:
    """Sums over the rows and targets of one layer, all float64, about the mean of the first batch."""

    products: Products = field(default_factory=Products)
    count: int = 0
    x_shift: Array | None = None
    t_shift: Array | None = None
    x: Matrix | float = 0.0
    t: Matrix | float = 0.0

    def update(self, rows: Array, targets: Array) -> None:
        """Add rows and targets."""
        rows, targets = rows.astype(np.float32, copy=False), targets.astype(np.float32, copy=False)
        if self.x_shift is None or self.t_shift is None:
            self.x_shift, self.t_shift = rows.mean(1, keepdims=True), targets.mean(1, keepdims=True)
        self.count += rows.shape[1]
        rows, targets = rows - self.x_shift, targets - self.t_shift
        self.x = self.x + rows.sum(1, dtype=np.float64)
        self.t = self.t + targets.sum(1, dtype=np.float64)
        self.products.update(rows, targets)

    def shifted_means(self) -> tuple[Matrix, Matrix]:
        """Means of rows and targets about the shift."""
        return np.asarray(self.x) / self.count, np.asarray(self.t) / self.count

    def means(self) -> tuple[Matrix, Matrix]:
        """Means of rows and targets."""
        assert self.x_shift is not None
        assert self.t_shift is not None
        x, t = self.shifted_means()
        return x + self.x_shift[:, 0], t + self.t_shift[:, 0]

    def known(self) -> KnownPart:
        """Means and covariances, of a layer that shares its products with no other."""
        (x, t), means, products = self.shifted_means(), self.means(), self.products
        if products.waiting:
            rows, targets = (np.concatenate(parts, axis=1) for parts in zip(*products.waiting, strict=True))
            scale = np.float32(self.count**-0.5)
            about = ((array - mean[:, None].astype(np.float32)) * scale for array, mean in ((rows, x), (targets, t)))
            return KnownRows(self.count, *means, *about)
        return Centered(
            self.count,
            *means,
            add_outer(np.asarray(products.xx) / self.count, x, -1.0),
            np.asarray(products.xt) / self.count - x[:, :, None] * t[:, None, :],
            np.asarray(products.tt) / self.count - t**2,
        )


@dataclass(frozen=True)
class KnownPart(ABC):
    """What is known of rows and targets.

    Attributes:
        count: how many rows there were.
        x, t: means, [groups, features] and [groups, outputs].
    """

    count: int
    x: Matrix
    t: Matrix

    def error(self, matrix: Matrix, bias: Matrix) -> float:
        """Mean squared error of rows @ matrix + bias, summed over outputs."""
        offset = np.einsum("gf,gfo->go", self.x, matrix) + bias - self.t
        return float(max(self.misfit(matrix), 0.0) + np.sum(offset**2))

    def best_bias(self, matrix: Matrix) -> Matrix:
        """The bias that makes the means agree: [groups, outputs]."""
        bias: Matrix = self.t - np.einsum("gf,gfo->go", self.x, matrix)
        return bias

    @abstractmethod
    def misfit(self, matrix: Matrix) -> float:
        """Variance of targets - rows @ matrix, summed over outputs."""

    @abstractmethod
    def spread(self, matrix: Matrix) -> Matrix:
        """Variance of rows @ matrix: [groups, outputs]."""

    @abstractmethod
    def target_variance(self) -> Matrix:
        """Variance of the targets: [groups, outputs]."""

    @abstractmethod
    def solve(self, start: Matrix, ridge: float) -> Matrix:
        """The matrix of least squared error plus ridge * mean variance * |matrix - start|^2 (Tikhonov).

        The ridge draws towards the weights that are there, not towards zero: with no data it changes nothing.
        """

    @abstractmethod
    def is_finite(self) -> bool:
        """Is all of it finite?"""

    @abstractmethod
    def covariances(self) -> Centered:
        """The same as means and covariances."""


@dataclass(frozen=True)
class Centered(KnownPart):
    """Means and covariances of rows and targets.

    Attributes:
        xx, xt: covariances, [groups, features, features] and [groups, features, outputs].
        tt: variances of the targets, [groups, outputs].
    """

    xx: Matrix
    xt: Matrix
    tt: Matrix

    def misfit(self, matrix: Matrix) -> float:
        """See `Known`."""
        read = np.matmul(self.xx, matrix.astype(self.xx.dtype, copy=False))
        return float(self.tt.sum() - 2 * np.sum(matrix * self.xt) + np.sum(matrix * read))

    def spread(self, matrix: Matrix) -> Matrix:
        """See `Known`."""
        read = np.matmul(self.xx, matrix.astype(self.xx.dtype, copy=False))
        spread: Matrix = np.maximum(np.sum(matrix * read, axis=1), 0.0)
        return spread

    def target_variance(self) -> Matrix:
        """See `Known`."""
        return np.maximum(self.tt, 0.0)

    def solve(self, start: Matrix, ridge: float) -> Matrix:
        """See `Known`."""
        features = self.xx.shape[1]
        solved = []
        for xx, xt, now in zip(self.xx, self.xt, start, strict=True):
            strength = ridge * max(float(np.trace(xx)) / features, 1e-30)
            system = xx.copy()
            system[np.diag_indices(features)] += strength
            short = xt - xx @ now.astype(xx.dtype, copy=False)
            solved.append(now + np.linalg.solve(system, short.astype(xx.dtype, copy=False)))
        return np.stack(solved)

    def is_finite(self) -> bool:
        """See `Known`."""
        return all(np.isfinite(array).all() for array in (self.xx, self.xt))

    def covariances(self) -> Centered:
        """See `Known`."""
        return self


@dataclass(frozen=True)
class KnownRows(KnownPart):
    """Rows and targets themselves, about their means and over the root of their number.

    Attributes:
        rows: float32, [groups, n, features].
        targets: float32, [groups, n, outputs].
    """

    rows: Array
    targets: Array

    def _short(self, matrix: Matrix) -> Matrix:
        """What rows @ matrix lacks of the targets."""
        short: Matrix = self.targets - np.matmul(self.rows, matrix)
        return short

    def misfit(self, matrix: Matrix) -> float:
        """See `Known`."""
        return float(np.sum(np.square(self._short(matrix))))

    def spread(self, matrix: Matrix) -> Matrix:
        """See `Known`."""
        spread: Matrix = np.sum(np.square(np.matmul(self.rows, matrix)), axis=1)
        return spread

    def target_variance(self) -> Matrix:
        """See `Known`."""
        variance: Matrix = np.sum(np.square(self.targets, dtype=np.float64), axis=1)
        return variance

    @cached_property
    def _products(self) -> Matrix:
        """Products of rows with each other: [groups, n, n]."""
        rows = self.rows.astype(np.float64)
        products: Matrix = np.matmul(rows, rows.transpose(0, 2, 1))
        return products

    def solve(self, start: Matrix, ridge: float) -> Matrix:
        """See `Known`: start + rows^T (rows rows^T + ridge)^-1 what is short, the same matrix by another way."""
        features, n = self.rows.shape[2], self.rows.shape[1]
        solved = []
        for rows, products, short, now in zip(self.rows, self._products, self._short(start), start, strict=True):
            strength = ridge * max(float(np.trace(products)) / features, 1e-30)
            solved.append(now + rows.T @ np.linalg.solve(products + strength * np.eye(n), short))
        return np.stack(solved)

    def is_finite(self) -> bool:
        """See `Known`."""
        return all(np.isfinite(array).all() for array in (self.rows, self.targets))

    def covariances(self) -> Centered:
        """See `Known`."""
        transposed = self.rows.transpose(0, 2, 1)
        xx, xt = (np.matmul(transposed, other) for other in (self.rows, self.targets))
        xx, xt = xx.astype(products_type(xx.shape[1]), copy=False), xt.astype(np.float64)
        return Centered(self.count, self.x, self.t, xx, xt, self.target_variance())


def merged(one: KnownPart, two: KnownPart) -> KnownPart:
    """Both sets of rows."""
    count = one.count + two.count
    p, q = one.count / count, two.count / count
    x, t = p * one.x + q * two.x, p * one.t + q * two.t
    if isinstance(one, KnownRows) and isinstance(two, KnownRows):
        parts = [(part, (part.count / count) ** 0.5, count**-0.5) for part in (one, two)]
        rows = [p.rows * share + (p.x - x)[:, None] * each for p, share, each in parts]
        targets = [p.targets * share + (p.t - t)[:, None] * each for p, share, each in parts]
        both = (np.concatenate(arrays, axis=1).astype(np.float32) for arrays in (rows, targets))
        return KnownRows(count, x, t, *both)
    dx, dt = one.x - two.x, one.t - two.t
    one, two = one.covariances(), two.covariances()
    return Centered(
        count,
        x,
        t,
        add_outer(_sum(p, one.xx, q, two.xx), dx, p * q),
        p * one.xt + q * two.xt + p * q * dx[:, :, None] * dt[:, None, :],
        p * one.tt + q * two.tt + p * q * dt**2,
    )


def about_zero(part: KnownPart) -> Centered:
    """Second moments in place of covariances: what a product without a bias is fitted to."""
    known = part.covariances()
    return Centered(
        known.count,
        np.zeros_like(known.x),
        np.zeros_like(known.t),
        add_outer(known.xx.copy(), known.x, 1.0),
        known.xt + known.x[:, :, None] * known.t[:, None, :],
        known.tt + known.t**2,
    )


def pooled(readers: Sequence[Moments], centered: Sequence[bool]) -> Centered:
    """Covariances of the rows of all layers that share their products, each about its own means; means come out as 0.

    Of a layer that is not `centered`, which has no bias, second moments are taken in place of covariances.
    """
    products = readers[0].products
    products.multiply()
    xx, xt, tt = (np.array(sums) for sums in (products.xx, products.xt, products.tt))
    for each, about_means in zip(readers, centered, strict=True):
        _add_products(xx, xt, tt, each.shifted_means(), -each.count)
        if not about_means:
            _add_products(xx, xt, tt, each.means(), each.count)
    count = sum(each.count for each in readers)
    x, t = (np.zeros_like(mean) for mean in readers[0].means())
    return Centered(count, x, t, xx / count, xt / count, tt / count)


def pooled_together(one: Sequence[Moments], two: Sequence[Moments], centered: Sequence[bool]) -> Centered:
    """The same of two sets of rows of the same layers: each about the means of both."""
    both = merged(pooled(one, centered), pooled(two, centered)).covariances()
    for first, second, about_means in zip(one, two, centered, strict=True):
        if about_means:
            apart = [mine - other for mine, other in zip(first.means(), second.means(), strict=True)]
            weight = first.count * second.count / (first.count + second.count) / both.count
            _add_products(both.xx, both.xt, both.tt, (apart[0], apart[1]), weight)
    return both


def _sum(p: float, one: Matrix, q: float, two: Matrix) -> Matrix:
    """The sum of both, weighted: one array more than the result at most."""
    total: Matrix = p * one
    total += q * two
    return total


def _add_products(xx: Matrix, xt: Matrix, tt: Matrix, means: tuple[Matrix, Matrix], weight: float) -> None:
    """Add so many times the products of means, in place."""
    x, t = means
    add_outer(xx, x, weight)
    xt += weight * x[:, :, None] * t[:, None, :]
    tt += weight * t**2


def best_ridge(train: KnownPart, held_out: KnownPart, start: Matrix) -> float | None:
    """The ridge of least error on held-out rows; None when the weights as they are, with the best bias, do better."""
    errors: dict[float | None, float] = {None: held_out.error(start, train.best_bias(start))}
    for ridge in RIDGES if len(train.x[0]) <= MANY_FEATURES else RIDGES[::2]:
        try:
            matrix = train.solve(start, ridge)
        except np.linalg.LinAlgError:  # too few rows for so small a ridge
            continue
        errors[ridge] = held_out.error(matrix, train.best_bias(matrix))
    return min(errors, key=lambda ridge: errors[ridge])
