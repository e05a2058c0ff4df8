"""Dimensions evaluated: which entries stay, how many, whose they are, and the expression as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from onnxprune.dims.forms import Atom, Concat, Dim, Permuted, concat, permuted, product, resolve

Mask = npt.NDArray[np.bool_]


def keep_mask(dim: Dim, keep: Mapping[Atom, Mask]) -> Mask:
    """Which entries of `dim` stay: bool, shape [size]. Atoms that `keep` does not name stay whole."""
    dim = resolve(dim)
    if isinstance(dim, Atom):
        mask = keep.get(dim)
        return np.ones(dim.size, dtype=np.bool_) if mask is None else mask
    if isinstance(dim, Permuted):
        return keep_mask(dim.inner, keep)[dim.order]
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
    if isinstance(dim, Permuted):
        return kept_size(dim.inner, kept)
    if isinstance(dim, Concat):
        return sum(kept_size(part, kept) for part in dim.parts)
    sizes: list[int] = [kept_size(part, kept) for part in dim.factors]  # type: ignore[attr-defined]
    return prod(sizes)


def replaced(dim: Dim, new: Callable[[Atom], Dim], keep: Mapping[Atom, Mask] = MappingProxyType({})) -> Dim:
    """The same expression with another dimension in place of each atom, of as many units as `keep` keeps of it."""
    dim = resolve(dim)
    if isinstance(dim, Atom):
        return new(dim)
    if isinstance(dim, Permuted):
        mask = keep_mask(dim.inner, keep)
        return permuted(replaced(dim.inner, new, keep), (np.cumsum(mask) - 1)[dim.order[mask[dim.order]]])
    if isinstance(dim, Concat):
        return concat(*(replaced(part, new, keep) for part in dim.parts))
    return product(*(replaced(part, new, keep) for part in dim.factors))  # type: ignore[attr-defined]


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
    elif isinstance(dim, Permuted):
        back = np.empty_like(weights)
        back[dim.order] = weights
        _project(resolve(dim.inner), back, found)
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
    if isinstance(dim, Permuted):
        return units_of(dim.inner, atom)[dim.order]
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
    if isinstance(dim, Permuted):
        return f"permuted {describe(dim.inner, names)}"
    if isinstance(dim, Concat):
        return "(" + "+".join(describe(part, names) for part in dim.parts) + ")"
    return "*".join(describe(part, names) for part in dim.factors)  # type: ignore[attr-defined]
