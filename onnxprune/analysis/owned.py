"""The entries of a unit: every one of the weights that goes with it, counted once.

A unit owns a slice of every weight axis that its group occurs in. Where the group occurs in two axes of one weight the
slices cross: a hidden unit of an LSTM owns a row and a column of the recurrence, a channel of a residual stream those
of a square weight on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from onnxprune.analysis.groups import Group, Occurrence
from onnxprune.dims import Dim, units_of

Axes = tuple[int, ...]
Totals = npt.NDArray[np.float64]


def owned_axes(groups: Iterable[Group]) -> dict[str, list[Axes]]:
    """Per tensor the sets of axes, ascending, that `sum_owned` asks for: each axis, and what slices cross along."""
    found: dict[str, set[Axes]] = {}
    for group in groups:
        for tensor, axes, _ in _slices(group.occurrences):
            found.setdefault(tensor, set()).add(axes)
    return {tensor: sorted(axes) for tensor, axes in found.items()}


def sum_owned(group: Group, sums: Callable[[str, Axes], Totals], places: Sequence[Occurrence] | None = None) -> Totals:
    """The sum of a number per weight over all that belongs to each unit (or that part of it in `places`).

    Args:
        group: whose units.
        sums: given a tensor and some of its axes, the sums over all other axes: float64, an axis for each.
        places: some of the group's occurrences.

    Returns: float64, shape [units].
    """
    total = np.zeros(group.units)
    for tensor, axes, dims in _slices(group.occurrences if places is None else places):
        units = [units_of(dim, group.atom) for dim in dims]
        grids = np.ix_(*units) if len(units) > 1 else units
        owner, mine = np.broadcast_to(grids[0], [len(each) for each in units]), grids[0] >= 0
        for grid in grids[1:]:
            mine = mine & (grid == grids[0])
        part = np.bincount(owner[mine], sums(tensor, axes)[mine], group.units)
        total += part if len(axes) % 2 else -part  # what slices have in common was counted with each of them
    return total


def _slices(places: Sequence[Occurrence]) -> Iterator[tuple[str, Axes, list[Dim]]]:
    """Every set of axes of one tensor among the places, with their dimensions."""
    by_tensor: dict[str, list[Occurrence]] = {}
    for place in places:
        by_tensor.setdefault(place.tensor, []).append(place)
    for tensor, found in by_tensor.items():
        found = sorted(found, key=lambda place: place.axis)
        for size in range(1, len(found) + 1):
            for some in combinations(found, size):
                yield tensor, tuple(place.axis for place in some), [place.dim for place in some]
