"""The algebra of dimensions: what every axis of every tensor is made of.

    Dim := Atom(n)                 n independent units
         | Concat(Dim, Dim, ...)   laid one after the other: sizes add
         | Product(Dim, Dim, ...)  row-major nesting: sizes multiply, outermost factor first

Atoms are the nodes of a union-find forest: `unify` binds an atom to whatever it met, `cut` and `factor` bind it to the
pieces it turned out to have. Every tensor axis that mentions the atom sees the refinement, so one pass over a graph is
enough. Sizes are concrete; terms of size 0 and factors of size 1 are dropped, so no dimension ever contains itself.

This module knows nothing of ONNX: plain Python and numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import gcd, prod

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]

# Rows of a matrix whose parts do not end at row ends are cut apart only while there are few of them.
_MAX_ROWS_CUT_APART = 16


class MisalignedError(Exception):
    """Two decompositions of one dimension whose boundaries do not line up."""


class Dim:
    """Base of the three forms. `size` is the number of entries along the axis."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size


class Atom(Dim):
    """`size` units that are removed one by one, or a name for what the atom was bound to."""

    __slots__ = ("bound", "reason")

    def __init__(self, size: int, reason: object | None = None) -> None:
        super().__init__(size)
        self.bound: Dim | None = None
        self.reason = reason


class Concat(Dim):
    """Parts one after the other; build it with `concat`."""

    __slots__ = ("parts",)

    def __init__(self, parts: tuple[Dim, ...]) -> None:
        super().__init__(sum(part.size for part in parts))
        self.parts = parts


class Product(Dim):
    """Row-major nesting, outermost factor first; build it with `product`."""

    __slots__ = ("factors",)

    def __init__(self, factors: tuple[Dim, ...]) -> None:
        super().__init__(prod(factor.size for factor in factors))
        self.factors = factors


def resolve(dim: Dim) -> Dim:
    """What `dim` stands for now: an unbound Atom, a Concat or a Product."""
    if not isinstance(dim, Atom) or dim.bound is None:
        return dim
    root = dim.bound
    while isinstance(root, Atom) and root.bound is not None:
        root = root.bound
    dim.bound = root  # path compression
    return root


def concat(*dims: Dim) -> Dim:
    """The dims one after the other, in normal form (flat, nothing of size 0)."""
    parts = tuple(part for dim in dims for part in terms(dim) if part.size)
    if not parts:
        return Atom(0)
    return parts[0] if len(parts) == 1 else Concat(parts)


def product(*dims: Dim) -> Dim:
    """Row-major nesting of the dims, in normal form (flat, no factor of size 1)."""
    if any(dim.size == 0 for dim in dims):
        return Atom(0)
    kept: list[Dim] = []
    for dim in dims:
        for factor_ in factors(dim):
            if factor_.size > 1:
                kept.append(factor_)
            else:  # a factor that no longer appears could not take its unit away
                freeze(factor_, "a single unit")
    if not kept:
        return Atom(1)
    return kept[0] if len(kept) == 1 else Product(tuple(kept))


def terms(dim: Dim) -> Iterator[Dim]:
    """The resolved parts of `dim` seen as a Concat."""
    dim = resolve(dim)
    if isinstance(dim, Concat):
        for part in dim.parts:
            yield from terms(part)
    else:
        yield dim


def factors(dim: Dim) -> Iterator[Dim]:
    """The resolved factors of `dim` seen as a Product."""
    dim = resolve(dim)
    if isinstance(dim, Product):
        for part in dim.factors:
            yield from factors(part)
    else:
        yield dim


def atoms(dim: Dim) -> Iterator[Atom]:
    """The unbound atoms inside `dim`, left to right; one that occurs twice comes twice."""
    dim = resolve(dim)
    if isinstance(dim, Atom):
        yield dim
    else:
        for part in dim.parts if isinstance(dim, Concat) else dim.factors:  # type: ignore[attr-defined]
            yield from atoms(part)


def freeze(dim: Dim, reason: object) -> None:
    """Every atom inside `dim` must keep its size; the first reason given is the one kept."""
    for atom in atoms(dim):
        if atom.reason is None:
            atom.reason = reason


def _bind(atom: Atom, dim: Dim) -> None:
    if atom.reason is not None:
        freeze(dim, atom.reason)
    atom.bound = dim


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
        _bind(dim, Concat((head, tail)))
        return head, tail
    if isinstance(dim, Concat):
        return _cut_concat(dim, k)
    return _cut_product(dim, k)


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
        _bind(dim, Product((outer, inner)))
        return outer, inner
    if isinstance(dim, Product):
        return _factor_product(dim, outer_size)
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


def unify(a: Dim, b: Dim, reason: object = "its parts do not line up") -> None:
    """Make `a` and `b` the same dimension. What does not line up is frozen on both sides with `reason`.

    Raises ValueError when the sizes differ.
    """
    if a.size != b.size:
        raise ValueError(f"dimensions of {a.size} and {b.size} entries cannot be the same")
    a, b = resolve(a), resolve(b)
    if a is b or a.size == 0:
        return
    if isinstance(a, Atom):
        _bind(a, b)
    elif isinstance(b, Atom):
        _bind(b, a)
    elif isinstance(a, Product) and isinstance(b, Product):
        _unify_products(a, b, reason)
    else:
        _unify_concats(a, b, reason)


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


def keep_mask(dim: Dim, keep: Mapping[Atom, Mask]) -> Mask:
    """Which entries of `dim` stay: bool, shape [size]. Atoms that `keep` does not name stay whole."""
    dim = resolve(dim)
    if isinstance(dim, Atom):
        mask = keep.get(dim)
        return np.ones(dim.size, dtype=np.bool_) if mask is None else mask
    if isinstance(dim, Concat):
        return np.concatenate([keep_mask(part, keep) for part in dim.parts])
    mask = np.ones(1, dtype=np.bool_)
    for part in dim.factors:  # type: ignore[attr-defined]
        mask = np.logical_and.outer(mask, keep_mask(part, keep)).ravel()
    return mask


def kept_size(dim: Dim, kept: Mapping[Atom, int]) -> int:
    """The size of `dim` after removal, from the number of units that stay in each atom; no mask is built."""
    dim = resolve(dim)
    if isinstance(dim, Atom):
        return kept.get(dim, dim.size)
    if isinstance(dim, Concat):
        return sum(kept_size(part, kept) for part in dim.parts)
    sizes: list[int] = [kept_size(part, kept) for part in dim.factors]  # type: ignore[attr-defined]
    return prod(sizes)


def handle(dim: Dim) -> Atom:
    """An atom that stands for the dimension; itself, where it is one."""
    if isinstance(dim, Atom):
        return dim
    atom = Atom(dim.size)
    atom.bound = dim
    return atom


def replaced(dim: Dim, new: Callable[[Atom], Dim]) -> Dim:
    """The same expression with another dimension in place of each atom."""
    dim = resolve(dim)
    if isinstance(dim, Atom):
        return new(dim)
    if isinstance(dim, Concat):
        return concat(*(replaced(part, new) for part in dim.parts))
    return product(*(replaced(part, new) for part in dim.factors))  # type: ignore[attr-defined]


def project(dim: Dim, weights: npt.NDArray[np.float64]) -> dict[Atom, npt.NDArray[np.float64]]:
    """Sum a weight per entry of `dim` (float64, shape [size]) into a weight per unit of every atom inside it.

    The adjoint of `keep_mask`: a Concat hands each part its slice, a Product sums over its other factors.
    """
    found: dict[Atom, npt.NDArray[np.float64]] = {}
    _project(resolve(dim), weights, found)
    return found


def _project(dim: Dim, weights: npt.NDArray[np.float64], found: dict[Atom, npt.NDArray[np.float64]]) -> None:
    if isinstance(dim, Atom):
        found[dim] = found[dim] + weights if dim in found else weights
    elif isinstance(dim, Concat):
        start = 0
        for part in dim.parts:
            _project(resolve(part), weights[start : start + part.size], found)
            start += part.size
    else:
        parts: tuple[Dim, ...] = dim.factors  # type: ignore[attr-defined]
        grid = weights.reshape([part.size for part in parts])
        for axis, part in enumerate(parts):
            others = tuple(i for i in range(len(parts)) if i != axis)
            _project(resolve(part), grid.sum(axis=others), found)


def units_of(dim: Dim, atom: Atom) -> npt.NDArray[np.int64]:
    """The unit of `atom` that each entry of `dim` belongs to, -1 for none: int64, shape [size]."""
    dim = resolve(dim)
    if isinstance(dim, Atom):
        return np.arange(dim.size) if dim is atom else np.full(dim.size, -1)
    if isinstance(dim, Concat):
        return np.concatenate([units_of(part, atom) for part in dim.parts])
    units = np.full(1, -1)
    for part in dim.factors:  # type: ignore[attr-defined]
        units = np.maximum.outer(units, units_of(part, atom)).ravel()
    return units


def describe(dim: Dim, names: Mapping[Atom, str] | None = None) -> str:
    """The expression as text: `3*(12+4)*64`, with the atoms' names where `names` has them."""
    dim = resolve(dim)
    if isinstance(dim, Atom):
        name = (names or {}).get(dim)
        return f"{name}:{dim.size}" if name else str(dim.size)
    if isinstance(dim, Concat):
        return "(" + "+".join(describe(part, names) for part in dim.parts) + ")"
    return "*".join(describe(part, names) for part in dim.factors)  # type: ignore[attr-defined]
