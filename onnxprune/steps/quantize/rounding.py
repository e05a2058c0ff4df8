"""Round a matrix so that what it gives changes little, rather than its weights.

What a layer gives changes by tr(D' H D), D being the change of its matrix [features, outputs] and H the second moments
of its features, the Gram matrix. Rounding one weight is made up for by those that are still to be rounded (Frantar et
al. 2023, "GPTQ", section 3: the inverse Hessian's Cholesky factor), and then every weight in turn moves to the integer
that is best beside the others (coordinate descent; Zhang et al. 2024, "COMQ").
"""

from __future__ import annotations

import numpy as np

from onnxprune.steps.quantize.grids import TINY, Matrix, largest_integer

# Shares of the largest weight that the largest integer is tried to represent.
_SHARES = np.linspace(0.4, 1.0, 13)
# Of the mean of the diagonal, added to it, so that features which never vary do no harm.
_DAMPING = 1e-4
# Coordinate descent ends after so many rounds, or once nothing changes.
_ROUNDS = 20
# Weights of so many features are rounded before what is left of the others is brought up to date.
_BLOCK = 64


def round_matrix(matrix: Matrix, gram: Matrix, bits: int, floor: Matrix | None = None) -> tuple[Matrix, Matrix]:
    """Integers [groups, features, outputs], and the scale of each output [groups, outputs].

    Args:
        matrix: what is to be rounded: [groups, features, outputs].
        gram: second moments of the features: [groups, features, features].
        bits: of each integer.
        floor: scales have to be this large at least: [groups, outputs].
    """
    found = [
        _round_group(weights, moments, bits, None if floor is None else floor[group])
        for group, (weights, moments) in enumerate(zip(matrix, gram, strict=True))
    ]
    integers, scales = zip(*found, strict=True)
    return np.stack(integers), np.stack(scales)


def _round_group(matrix: Matrix, gram: Matrix, bits: int, floor: Matrix | None) -> tuple[Matrix, Matrix]:
    features = len(matrix)
    damped = gram + (_DAMPING * max(float(np.trace(gram)) / features, TINY)) * np.eye(features)
    scales = _best_scales(matrix, damped, bits, floor)
    integers = _compensated(matrix, damped, scales, bits)
    for _ in range(2):
        integers = _descended(integers, matrix, damped, scales, bits)
        scales = _refitted(integers, matrix, damped, scales, floor)
    return _descended(integers, matrix, damped, scales, bits), scales


def _best_scales(matrix: Matrix, gram: Matrix, bits: int, floor: Matrix | None) -> Matrix:
    """Of each output, the scale with which rounding to nearest changes least what comes out: [outputs]."""
    most = largest_integer(bits)
    largest = np.maximum(np.abs(matrix).max(axis=0) / most, TINY)
    best, least = largest, np.full(len(largest), np.inf)
    for share in _SHARES[::-1]:
        scales = largest * share if floor is None else np.maximum(largest * share, floor)
        change = np.clip(np.rint(matrix / scales), -most, most) * scales - matrix
        errors = np.einsum("fo,fo->o", change, gram @ change)
        better = errors < least
        best, least = np.where(better, scales, best), np.where(better, errors, least)
    return np.asarray(best, np.float64)


def _refitted(integers: Matrix, matrix: Matrix, gram: Matrix, scales: Matrix, floor: Matrix | None) -> Matrix:
    """The scale of each output that fits its integers best; as it was where that gives no scale."""
    seen = gram @ integers
    above, below = np.einsum("fo,fo->o", seen, matrix), np.einsum("fo,fo->o", seen, integers)
    fitted = np.where((above > 0) & (below > 0), above / np.maximum(below, TINY), scales)
    return np.asarray(np.maximum(fitted, TINY if floor is None else floor), np.float64)


def _compensated(matrix: Matrix, gram: Matrix, scales: Matrix, bits: int) -> Matrix:
    """Round feature after feature, those that vary most first; the others make up for the error."""
    most = largest_integer(bits)
    order = np.argsort(-np.diag(gram), kind="stable")
    inverse = np.linalg.inv(gram[np.ix_(order, order)])
    upper = np.linalg.cholesky((inverse + inverse.T) / 2).T
    left, integers = matrix[order].copy(), np.zeros_like(matrix)
    for start in range(0, len(left), _BLOCK):
        end = min(start + _BLOCK, len(left))
        errors = np.zeros((end - start, matrix.shape[1]))
        for at in range(start, end):
            integers[at] = np.clip(np.rint(left[at] / scales), -most, most)
            errors[at - start] = (left[at] - integers[at] * scales) / upper[at, at]
            left[at + 1 : end] -= np.outer(upper[at, at + 1 : end], errors[at - start])
        left[end:] -= upper[start:end, end:].T @ errors
    back = np.empty_like(integers)
    back[order] = integers
    return back


def _descended(integers: Matrix, matrix: Matrix, gram: Matrix, scales: Matrix, bits: int) -> Matrix:
    """Move every weight to the integer that is best beside the others, until none moves."""
    most, integers = largest_integer(bits), integers.copy()
    short = gram @ (matrix - integers * scales)  # minus half the gradient
    for _ in range(_ROUNDS):
        moved = False
        for start in range(0, len(matrix), _BLOCK):
            end = min(start + _BLOCK, len(matrix))
            inside, steps = gram[start:end, start:end], np.zeros((end - start, matrix.shape[1]))
            for at in range(start, end):
                best = np.rint(integers[at] + short[at] / (gram[at, at] * scales))
                step = np.clip(best, -most, most) - integers[at]
                if step.any():
                    integers[at] += step
                    steps[at - start] = step * scales
                    short[start:end] -= np.outer(inside[:, at - start], steps[at - start])
            if steps.any():
                moved = True
                outside = gram[:, start:end] @ steps
                outside[start:end] = 0
                short -= outside
        if not moved:
            break
    return integers
