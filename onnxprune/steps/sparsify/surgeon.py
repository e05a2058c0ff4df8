"""Optimal Brain Surgeon for single weights, layer after layer, with an update of the weights that stay.

For a layer with rows x, targets t and H = E[x x^T] the weights of an output that may be other than zero are best at

    w_S = (H_SS)^-1 E[x_S t]

Which ones may is decided feature by feature: with the upper Cholesky factor U of H^-1, weights of feature j cost
w_j^2 / U_jj^2 when they go and all later features make up for them (Frantar & Alistarh 2023, "SparseGPT", algorithm 1;
the step is equation 5 of Hassibi et al. 1993, "Optimal Brain Surgeon"). Choices are made for a block of features at a
time. In the end the weights that stay are solved for exactly, where there are few enough of them (Frantar & Alistarh
2022, "Optimal Brain Compression", section 4).

Targets are what the dense model gives, rows what the layer reads in the sparse one: each layer also makes up for those
in front of it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxprune.analysis.sparse_patterns import Anywhere, Channels, EvenRows, Pattern, by_taps
from onnxprune.dims import Mask
from onnxprune.steps.recover.evidence import Evidence
from onnxprune.steps.recover.least_squares import Matrix, best_ridge

# What is added to the diagonal of H, as a share of its mean, where no ridge is better.
_DAMPING = 1e-2
# A layer's weights are chosen in about so many blocks of features.
_BLOCKS = 8
# Weights that stay are solved for exactly in layers of at most so many features: it takes their cube for each output.
_MOST_SOLVED = 1_200


def damped(covariance: Matrix, share: float = _DAMPING) -> Matrix:
    """With a share of its mean diagonal added to it: float64, [groups, features, features]."""
    features = covariance.shape[-1]
    mean = np.trace(covariance, axis1=1, axis2=2) / features
    added: Matrix = covariance + (share * mean + 1e-30)[:, None, None] * np.eye(features)
    return added


def choose(start: Matrix, hessian: Matrix, pattern: Pattern, share: float, allowed: Mask) -> tuple[Matrix, Mask]:
    """The weights that go, one block of features after the other, and the others with their update.

    Args:
        start: weights [features, outputs], the features in the order of the pattern.
        hessian: second moments of the features, with damping.
        pattern: where zeros may be.
        share: of the weights that goes.
        allowed: those that may stay.

    Returns: the weights, zero where they went, and which stay; both [features, outputs].
    """
    features, outputs = start.shape
    weights, kept = start.copy(), np.ones((features, outputs), np.bool_)
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).T
    size = _block_size(features, pattern)
    gone = 0
    for first in range(0, features, size):
        block = slice(first, min(first + size, features))
        scores = np.square(weights[block] / np.diagonal(upper)[block, None])
        scores = np.where(allowed[block], scores, -1.0)
        due = round(share * block.stop * outputs) - gone
        kept[block] = pattern.keep(scores[None], max(due, 0) / scores.size)[0] & allowed[block]
        gone += int((~kept[block]).sum())
        errors = np.zeros_like(weights[block])
        for at, feature in enumerate(range(first, block.stop)):
            errors[at] = np.where(kept[feature], 0.0, weights[feature]) / upper[feature, feature]
            weights[feature : block.stop] -= np.outer(upper[feature, feature : block.stop], errors[at])
        weights[block.stop :] -= upper[block, block.stop :].T @ errors
    return np.where(kept, weights, 0.0), kept


def _block_size(features: int, pattern: Pattern) -> int:
    """Features that are chosen together: all, where outputs are to keep as many each, or go as a whole."""
    if isinstance(pattern, EvenRows | Channels):
        return features
    size = -(-features // _BLOCKS)
    return -(-size // pattern.columns) * pattern.columns


def solve_kept(hessian: Matrix, products: Matrix, kept: Mask) -> Matrix:
    """The best weights where `kept`, zero elsewhere: [features, outputs].

    Args:
        hessian: second moments of the features, with damping.
        products: of features and targets, [features, outputs].
        kept: which weights may be other than zero, [features, outputs].
    """
    weights = np.zeros_like(products)
    for output in range(products.shape[1]):
        rows = np.flatnonzero(kept[:, output])
        if len(rows):
            weights[rows, output] = np.linalg.solve(hessian[np.ix_(rows, rows)], products[rows, output])
    return weights


class SurgeonFit:
    """The work on each layer of the walk (see `steps.recover.layerwise`): weights go, the others are fitted.

    A layer that is none of `shares` keeps its weights, and its bias makes up for what came before.

    Args:
        shares: of the weights of each layer that go, by key.
        pattern: where zeros may be.
        allowed: entries that may stay, by key, as [groups, features, outputs].
        chosen: which stay, by key, where that is decided already; what is decided is added.
        weights: fit weights; else only biases.
    """

    def __init__(
        self,
        shares: Mapping[str, float],
        pattern: Pattern,
        allowed: Mapping[str, Mask],
        chosen: dict[str, Mask],
        *,
        weights: bool = True,
    ) -> None:
        self.shares, self.pattern, self.allowed, self.chosen, self.weights = shares, pattern, allowed, chosen, weights
        self._ridges: dict[str, float] = {}
        self._starts: dict[str, Matrix] = {}

    def __call__(self, evidence: Evidence) -> tuple[Matrix, Matrix] | None:
        """Matrix and bias; None where they do not come out finite."""
        key = evidence.layer.weight
        matrix = evidence.matrix
        if key in self.shares and self.weights:
            matrix = self._fitted(key, evidence)
        elif key in self.chosen:
            matrix = np.where(self.chosen[key], matrix, 0.0)
        bias = evidence.everything.best_bias(matrix)
        return (matrix, bias) if np.isfinite(matrix).all() and np.isfinite(bias).all() else None

    def _fitted(self, key: str, evidence: Evidence) -> Matrix:
        start = self._starts.setdefault(key, evidence.matrix)
        if key not in self._ridges:
            found = best_ridge(evidence.train, evidence.held_out, start)
            self._ridges[key] = _DAMPING if found is None else found
        known = evidence.everything.covariances()
        ridge = self._ridges[key]
        hessians = damped(known.xx, ridge)
        drawn = hessians - known.xx  # the ridge draws towards the weights as they were
        products = known.xt + np.matmul(drawn, start)
        allowed = self.allowed.get(key, np.ones(start.shape, np.bool_))
        fixed = self.chosen.get(key)
        parts = [
            self._group(evidence.layer.form.taps, *each, self.shares[key], None if fixed is None else fixed[number])
            for number, each in enumerate(zip(hessians, products, allowed, strict=True))
        ]
        self.chosen[key] = np.stack([kept for _, kept in parts])
        return np.stack([weights for weights, _ in parts])

    def _group(
        self, taps: int, hessian: Matrix, products: Matrix, allowed: Mask, share: float, fixed: Mask | None
    ) -> tuple[Matrix, Mask]:
        """One of several products side by side: its weights, and which may be other than zero."""
        features = len(hessian)
        order = by_taps(features, taps)
        if fixed is None:
            ordered = hessian[np.ix_(order, order)]
            best = np.linalg.solve(ordered, products[order]).astype(np.float64)
            weights, kept = np.empty_like(products), np.empty(products.shape, np.bool_)
            weights[order], kept[order] = choose(best, ordered, self.pattern, share, allowed[order])
        else:
            kept, weights = fixed, products
        if features <= _MOST_SOLVED:
            weights = solve_kept(hessian, products, kept)
        elif fixed is not None:
            order = np.arange(features)
            best = np.linalg.solve(hessian, products).astype(np.float64)
            weights, _ = choose(best, hessian, Anywhere(), 0.0, kept)
        return weights, kept
