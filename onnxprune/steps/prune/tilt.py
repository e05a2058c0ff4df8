"""Tilt a family of cuts: the allocation decides, and a curve over the depth of the network bends what it decides.

A few numbers change the cut of every group at once, which is what a search needs: with all of them 0 the cut is that
of the allocation. A group that would keep the share k of the units that may go keeps k ** (2 ** tilt): so 0 and 1 stay
as they are at any tilt, and a higher strength never removes fewer units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxprune.analysis.groups import Analysis, Group
from onnxprune.analysis.select import select_groups
from onnxprune.steps.prune.allocation.base import Family, Lost
from onnxprune.steps.prune.options import PruneOptions


def tilts_of(analysis: Analysis, groups: Sequence[Group], options: PruneOptions) -> dict[str, float]:
    """Per group id, its tilt: of its depth, between the numbers of `tilt` on a straight line, and of its pattern.

    Raises UsageError for a pattern that matches no group.
    """
    if not options.tilt and not options.tilts:
        return {}
    ends = np.linspace(0, 1, len(options.tilt)) if len(options.tilt) > 1 else np.zeros(1)
    depths = np.linspace(0, 1, max(len(analysis.groups), 2))
    curve = np.interp(depths, ends, options.tilt) if options.tilt else np.zeros(len(depths))
    by_pattern: dict[str, float] = {}
    for pattern, number in options.tilts:
        by_pattern.update({group.id: number for group in select_groups(analysis, [pattern], ())})
    chosen = {group.id for group in groups}
    return {
        group.id: float(at) + by_pattern.get(group.id, 0.0)
        for group, at in zip(analysis.groups, curve, strict=False)
        if group.id in chosen
    }


def tilted(family: Family, most: Mapping[str, int], tilts: Mapping[str, float]) -> Family:
    """The family with every group's cut bent by its tilt; `most` units may go of each."""
    if not any(tilts.values()):
        return family

    def lost(t: float) -> Lost:
        return {name: _bent(count, most[name], tilts.get(name, 0.0)) for name, count in family(t).items()}

    return lost


def _bent(count: int, most: int, tilt: float) -> int:
    if not most or not tilt:
        return count
    bent: float = most * (1 - (1 - count / most) ** (2.0**tilt))
    return round(bent)
