"""Axis sizes that hardware likes: keep a few units more, so that every axis is a multiple of a number."""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd

from onnxprune.analysis.groups import Group
from onnxprune.dims import Atom, Dim, Product, factors, kept_size, resolve, terms


def round_up(groups: list[Group], lost: Mapping[str, int], multiple: int) -> dict[str, int]:
    """Lower the number of units that each group loses until its axes come out as multiples of `multiple`.

    An axis may be a product (heads * head-dim): then the product counts, with the other factors as already decided. A
    group that cannot reach a multiple without exceeding its size is left whole.
    """
    kept = {group.atom: group.units - lost.get(group.id, 0) for group in groups}
    for group in groups:
        if lost.get(group.id, 0):
            step = max(
                multiple // gcd(multiple, _entries_per_unit(occurrence.dim, group.atom, kept))
                for occurrence in group.occurrences
            )
            kept[group.atom] = min(-(-kept[group.atom] // step) * step, group.units)
    return {group.id: group.units - kept[group.atom] for group in groups}


def _entries_per_unit(dim: Dim, atom: Atom, kept: Mapping[Atom, int]) -> int:
    """How many entries of an axis one unit stands for, once the other factors are cut."""
    counts = [count for count in (_count(part, atom, kept) for part in terms(dim)) if count]
    return gcd(*counts) if counts else 1


def _count(dim: Dim, atom: Atom, kept: Mapping[Atom, int]) -> int:
    dim = resolve(dim)
    if dim is atom:
        return 1
    if not isinstance(dim, Product):
        return 0
    parts = list(factors(dim))
    for index, part in enumerate(parts):
        inner = [count for count in (_count(term, atom, kept) for term in terms(part)) if count]
        if inner:
            others = 1
            for other, sibling in enumerate(parts):
                others *= kept_size(sibling, kept) if other != index else 1
            return gcd(*inner) * others
    return 0
