"""The forms that a dimension takes, how they are built, and what is inside."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
import numpy.typing as npt


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


class Permuted(Dim):
    """Entry i is entry `order[i]` (int64, shape [size]) of `inner`; build it with `permuted`."""

    __slots__ = ("inner", "order")

    def __init__(self, inner: Dim, order: npt.NDArray[np.int64]) -> None:
        super().__init__(inner.size)
        self.inner = inner
        self.order = order


def resolve(dim: Dim) -> Dim:
    """The form of `dim` now: an unbound Atom, a Concat, a Product or a Permuted of one of these."""
    if isinstance(dim, Permuted):
        return dim if resolve(dim.inner) is dim.inner else permuted(dim.inner, dim.order)
    if not isinstance(dim, Atom) or dim.bound is None:
        return dim
    root = dim.bound
    while isinstance(root, Atom) and root.bound is not None:
        root = root.bound
    dim.bound = resolve(root)  # path compression
    return dim.bound


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


def permuted(dim: Dim, order: npt.NDArray[np.int64]) -> Dim:
    """The entries of `dim` in another order, in normal form (one order, which is not the one they have)."""
    dim = resolve(dim)
    if isinstance(dim, Permuted):
        return permuted(dim.inner, dim.order[order])
    return dim if bool((order[1:] > order[:-1]).all()) else Permuted(dim, order)


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
    elif isinstance(dim, Permuted):
        yield from atoms(dim.inner)
    else:
        for part in dim.parts if isinstance(dim, Concat) else dim.factors:  # type: ignore[attr-defined]
            yield from atoms(part)


def freeze(dim: Dim, reason: object) -> None:
    """Every atom inside `dim` must keep its size; the first reason given is the one kept."""
    for atom in atoms(dim):
        if atom.reason is None:
            atom.reason = reason


def bind(atom: Atom, dim: Dim) -> None:
    """The atom is a name for `dim` from now on; why it keeps its size holds for what is inside."""
    if atom.reason is not None:
        freeze(dim, atom.reason)
    atom.bound = dim


def handle(dim: Dim) -> Atom:
    """An atom that represents the dimension; itself, where it is one."""
    if isinstance(dim, Atom):
        return dim
    atom = Atom(dim.size)
    atom.bound = dim
    return atom
