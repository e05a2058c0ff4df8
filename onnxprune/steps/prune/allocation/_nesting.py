"""Groups that are nested in each other: their shares multiply, so one of them waits for the other.

The channels of a grouped convolution are groups times channels in a group, those under a GroupNormalization likewise.
Half of the groups and half of what is in each would leave a quarter of the channels, where a half was asked for.
Heads and what is in a head are exempt: each is a size of its own to whoever asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onnxprune.analysis.groups import Group
from onnxprune.dims import Atom, Dim, Permuted, Product, atoms, factors, resolve, terms

_OWN_SIZES = ("heads", "kv-heads", "head-dim")


def seniors(groups: Sequence[Group]) -> dict[str, list[str]]:
    """Per group id, the larger groups that it is nested with on some axis of a weight: they lose units first."""
    order = sorted((group for group in groups if group.kind not in _OWN_SIZES), key=lambda group: -group.units)
    rank = {group.atom: index for index, group in enumerate(order)}
    found: dict[str, set[int]] = {group.id: set() for group in groups}
    for group in order:
        for a, b in (pair for place in group.occurrences for pair in _nested(place.dim)):
            if a is group.atom and b is not a and rank.get(b, len(order)) < rank[a]:
                found[group.id].add(rank[b])
    return {name: [order[index].id for index in sorted(before)] for name, before in found.items()}


def axes(groups: Sequence[Group]) -> list[frozenset[Atom]]:
    """The axes that units are counted on: each group alone, but those nested on an axis together, by that axis."""
    counted = {group.atom for group in groups if group.kind not in _OWN_SIZES}
    found = {frozenset({group.atom}) for group in groups}
    for group in groups:
        dims = (resolve(place.dim) for place in group.occurrences)
        for part in (part for dim in dims for part in terms(dim.inner if isinstance(dim, Permuted) else dim)):
            if isinstance(part, Product):
                found.add(frozenset(counted.intersection(atoms(part))))
    return [axis for axis in found if axis and not any(axis < other for other in found)]


def _nested(dim: Dim) -> Iterator[tuple[Atom, Atom]]:
    """Every two atoms in different factors of one product."""
    dim = resolve(dim)
    for part in terms(dim.inner if isinstance(dim, Permuted) else dim):
        inside = list(factors(part))
        for one in inside if len(inside) > 1 else ():
            others = [atom for other in inside if other is not one for atom in atoms(other)]
            yield from ((atom, other) for atom in atoms(one) for other in others)
            yield from _nested(one)
