"""Axis sizes that hardware likes: keep a few units more, so that every axis is a multiple of a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd

from onnxprune.analysis.groups import Group
from onnxprune.dims import Atom, Dim, Product, factors, kept_size, resolve, terms

# Less than this no kernel likes, and a smaller axis than half of it stays as it is.
_SMALLEST_BLOCK = 4
# A multiple leaves an axis as many sizes to choose from, unless it is the smallest.
_SIZES = 4


@dataclass(frozen=True)
class Multiple:
    """The number that the axes of a group are multiples of.

    Attributes:
        number: the multiple.
        at_most: small axes are multiples of a half of it, a quarter and so on, very small ones stay as they are.
    """

    number: int
    at_most: bool = False

    def of(self, size: int) -> int:
        """The multiple for an axis that is to have at least this size."""
        if not self.at_most:
            return self.number
        if 2 * size <= _SMALLEST_BLOCK:
            return 1
        number = self.number
        while number > _SMALLEST_BLOCK and size < _SIZES * number:
            number //= 2
        return number


def round_up(groups: Sequence[Group], lost: Mapping[str, int], multiples: Mapping[str, Multiple]) -> dict[str, int]:
    """Lower the number of units that each group loses until its axes come out as multiples.

    An axis may be a product (heads * head-dim): then the product counts, with the other factors as already decided. A
    group that cannot reach a multiple without exceeding its size is left whole, and one that is not named as it is.
    """
    kept = {group.atom: group.units - lost.get(group.id, 0) for group in groups}
    for group in groups:
        if lost.get(group.id, 0) and group.id in multiples:
            kept[group.atom] = _aligned(group, kept[group.atom], multiples[group.id], kept)
    return {group.id: group.units - kept[group.atom] for group in groups}


def next_larger(group: Group, groups: Sequence[Group], lost: Mapping[str, int], multiple: Multiple | None) -> int:
    """How many units a group loses at its next larger size; 0 where it is whole then."""
    kept = {each.atom: each.units - lost.get(each.id, 0) for each in groups}
    larger = kept[group.atom] + 1
    return group.units - (larger if multiple is None else _aligned(group, larger, multiple, kept))


def _aligned(group: Group, least: int, multiple: Multiple, kept: Mapping[Atom, int]) -> int:
    """The least number of units, from `least` on, with which every axis that the group is in is a multiple."""
    step = 1
    for occurrence in group.occurrences:
        entries = _entries_per_unit(occurrence.dim, group.atom, kept)
        number = multiple.of(least * entries)
        step = max(step, number // gcd(number, entries))
    return min(-(-least // step) * step, group.units)


def _entries_per_unit(dim: Dim, atom: Atom, kept: Mapping[Atom, int]) -> int:
    """How many entries of an axis one unit represents, once the other factors are cut."""
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
