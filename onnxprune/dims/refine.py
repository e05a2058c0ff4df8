"""Refinement of dimensions: boundaries (`cut`, `factor`) and which are the same (`unify`)."""

from __future__ import annotations

from itertools import pairwise
from math import gcd

import numpy as np

from onnxprune.dims.forms import (
    Atom,
    Concat,
    Dim,
    Permuted,
    Product,
    bind,
    concat,
    factors,
    freeze,
    permuted,
    product,
    resolve,
    terms,
)
from onnxprune.dims.masks import describe

# Rows of a matrix whose parts do not end at row ends are cut apart only while there are few of them.
_MAX_ROWS_CUT_APART = 16


class MisalignedError(Exception):
    """Two decompositions of one dimension whose boundaries do not line up."""


def cut(dim: Dim, k: int) -> tuple[Dim, Dim]:
    """Refine `dim` into its first `k` entries and the rest.

    Raises ValueError when `k` is not within 0..size.
    """
    if not 0 <= k <= dim.size:
        raise ValueError(f"cannot cut {dim.size} entries at {k}")
    dim = resolve(dim)
    if k == 0:
        return Atom(0), dim
    if k == dim.size:
        return dim, Atom(0)
    if isinstance(dim, Atom):
        head, tail = Atom(k), Atom(dim.size - k)
        bind(dim, Concat((head, tail)))
        return head, tail
    if isinstance(dim, Concat):
        return _cut_concat(dim, k)
    return _cut_permuted(dim, k) if isinstance(dim, Permuted) else _cut_product(dim, k)


def _cut_concat(dim: Concat, k: int) -> tuple[Dim, Dim]:
    before: list[Dim] = []
    parts = list(terms(dim))
    while k >= parts[0].size:
        k -= parts[0].size
        before.append(parts.pop(0))
    head, tail = cut(parts[0], k)
    return concat(*before, head), concat(tail, *parts[1:])


def _cut_product(dim: Dim, k: int) -> tuple[Dim, Dim]:
    """Cut between outer entries where possible, else through one of them (which cuts the inner factors)."""
    outer, *rest = factors(dim)
    inner = product(*rest)
    whole, into = divmod(k, inner.size)
    front, back = cut(outer, whole)
    if into == 0:
        return product(front, inner), product(back, inner)
    middle, back = cut(back, 1)
    freeze(middle, "a single unit")
    head, tail = cut(inner, into)
    return concat(product(front, inner), head), concat(tail, product(back, inner))


def _cut_permuted(dim: Permuted, k: int) -> tuple[Dim, Dim]:
    """Cut what is permuted where it passes from one side to the other: in each of its rows alike, or as a whole."""
    front = np.zeros(dim.size, dtype=np.bool_)
    front[dim.order[:k]] = True
    row = next(n for n in range(1, dim.size + 1) if dim.size % n == 0 and (front.reshape(-1, n) == front[:n]).all())
    edges = [0, *(np.flatnonzero(np.diff(front[:row])) + 1).tolist(), row]
    try:
        if len(edges) > _MAX_ROWS_CUT_APART:
            raise MisalignedError
        outer, rest = factor(dim.inner, dim.size // row)
    except MisalignedError:
        reason = "cut apart in an order of its own"
        freeze(dim, reason)
        return Atom(k, reason), Atom(dim.size - k, reason)
    pieces: list[list[Dim]] = [[], []]
    for start, stop in pairwise(edges):
        piece, rest = cut(rest, stop - start)
        pieces[0 if front[start] else 1].append(piece)
    sides = [concat(*side) if outer.size == 1 else product(outer, concat(*side)) for side in pieces]
    orders = [np.argsort(np.argsort(order)) for order in (dim.order[:k], dim.order[k:])]
    return permuted(sides[0], orders[0]), permuted(sides[1], orders[1])


def factor(dim: Dim, outer_size: int) -> tuple[Dim, Dim]:
    """Refine `dim` into an outer part of `outer_size` entries and the inner part that repeats under each.

    Raises MisalignedError when the known structure of `dim` has no such boundary.
    """
    if outer_size < 1 or dim.size % outer_size:
        raise MisalignedError(f"{describe(dim)} has no outer part of {outer_size}")
    dim = resolve(dim)
    inner_size = dim.size // outer_size
    if outer_size == 1:
        return Atom(1), dim
    if inner_size == 1:
        return dim, Atom(1)
    if isinstance(dim, Atom):
        outer, inner = Atom(outer_size), Atom(inner_size)
        bind(dim, Product((outer, inner)))
        return outer, inner
    if isinstance(dim, Product):
        return _factor_product(dim, outer_size)
    if isinstance(dim, Permuted):
        return _factor_permuted(dim, outer_size)
    return _factor_concat(dim, outer_size, inner_size)


def _factor_product(dim: Dim, outer_size: int) -> tuple[Dim, Dim]:
    first, *rest = factors(dim)
    if outer_size % first.size == 0:
        outer, inner = factor(product(*rest), outer_size // first.size)
        return product(first, outer), inner
    if first.size % outer_size:
        raise MisalignedError(f"{describe(dim)} has no outer part of {outer_size}")
    outer, inner = factor(first, outer_size)
    return outer, product(inner, *rest)


def _factor_concat(dim: Dim, outer_size: int, inner_size: int) -> tuple[Dim, Dim]:
    parts = list(terms(dim))
    if all(part.size % inner_size == 0 for part in parts):
        outers, inners = zip(*(factor(part, part.size // inner_size) for part in parts), strict=True)
        outer = concat(*outers)
    elif outer_size <= _MAX_ROWS_CUT_APART:
        rows, rest = [], dim
        for _ in range(outer_size):
            row, rest = cut(rest, inner_size)
            rows.append(row)
        outer, inners = Atom(outer_size, "its rows end inside parts of a concatenation"), tuple(rows)
    else:
        raise MisalignedError(f"{describe(dim)} has no outer part of {outer_size}")
    for inner in inners[1:]:
        unify(inners[0], inner)
    return outer, inners[0]


def _factor_permuted(dim: Permuted, outer_size: int) -> tuple[Dim, Dim]:
    """Where rows are permuted alike among themselves and each inside, or rows have become columns."""
    grid = dim.order.reshape(outer_size, -1)
    for size, transposed in ((outer_size, False), (dim.size // outer_size, True)):
        outer, inner = np.divmod(grid.T if transposed else grid, dim.size // size)
        if (outer == outer[:, :1]).all() and (inner == inner[:1]).all():
            first, second = factor(dim.inner, size)
            parts = permuted(first, outer[:, 0]), permuted(second, inner[0])
            return parts[::-1] if transposed else parts
    raise MisalignedError(f"{describe(dim)} has no outer part of {outer_size}")


def unify(a: Dim, b: Dim, reason: object = "its parts do not line up") -> None:
    """Make `a` and `b` the same dimension. What does not line up is frozen on both sides with `reason`.

    Raises ValueError when the sizes differ.
    """
    if a.size != b.size:
        raise ValueError(f"dimensions of {a.size} and {b.size} entries cannot be the same")
    a, b = resolve(a), resolve(b)
    if a is b or a.size == 0:
        return
    if isinstance(a, Permuted) or isinstance(b, Permuted):
        _unify_permuted(a, b, reason)
    elif isinstance(a, Atom):
        bind(a, b)
    elif isinstance(b, Atom):
        bind(b, a)
    elif isinstance(a, Product) and isinstance(b, Product):
        _unify_products(a, b, reason)
    else:
        _unify_concats(a, b, reason)


def _unify_permuted(a: Dim, b: Dim, reason: object) -> None:
    """Put the order on one side, and cut or factor that as the other side is; a dimension has one order in itself."""
    if isinstance(a, Permuted):
        b = permuted(b, np.argsort(a.order))
        a = resolve(a.inner)
    if isinstance(b, Permuted) and isinstance(b.inner, Atom):
        a, b = b.inner, permuted(a, np.argsort(b.order))
    if not isinstance(b, Permuted):
        unify(a, b, reason)
    elif a is b.inner:
        freeze(a, "its units meet themselves in another order")
    elif isinstance(a, Atom):
        bind(a, b)
    elif isinstance(a, Concat):
        _unify_concats(a, b, reason)
    else:
        _unify_products(a, b, reason)


def _unify_concats(a: Dim, b: Dim, reason: object) -> None:
    """Split both at each other's boundaries; a Product is distributed over the parts by `cut`."""
    left, right = list(terms(a)), list(terms(b))
    while left and right:
        size = min(left[0].size, right[0].size)
        (head_a, tail_a), (head_b, tail_b) = cut(left[0], size), cut(right[0], size)
        unify(head_a, head_b, reason)
        left[:1] = [part for part in terms(tail_a) if part.size]
        right[:1] = [part for part in terms(tail_b) if part.size]


def _unify_products(a: Dim, b: Dim, reason: object) -> None:
    """Align factors from the outermost, then from the innermost; freeze what is left between."""
    left, right = list(factors(a)), list(factors(b))
    for end in (0, -1):
        while left and right and _align(left, right, end, reason):
            pass
    for dim in (*left, *right):
        freeze(dim, reason)


def _align(left: list[Dim], right: list[Dim], end: int, reason: object) -> bool:
    """Unify what both lists have in common at one end (0 outermost, -1 innermost) and take it off; False if nothing."""
    size = gcd(left[end].size, right[end].size)
    if size == 1:
        return False
    try:
        near_a, far_a = _split_factor(left[end], size, end)
        near_b, far_b = _split_factor(right[end], size, end)
    except MisalignedError:
        return False
    unify(near_a, near_b, reason)
    for dims, far in ((left, far_a), (right, far_b)):
        position = 0 if end == 0 else len(dims) - 1
        dims[position : position + 1] = [part for part in factors(far) if part.size > 1]
    return True


def _split_factor(dim: Dim, size: int, end: int) -> tuple[Dim, Dim]:
    if end == 0:
        return factor(dim, size)
    outer, inner = factor(dim, dim.size // size)
    return inner, outer
