"""The default: groups that many layers share lose less, by the structure of the model alone."""

from __future__ import annotations

from onnxprune.allocation.base import Family, Lost, Problem, allocation, share

# How much a unit is spared for being in n layers: its log of the kept share is divided by n to this power.
SPARING = 0.75


@allocation("auto")
def auto(problem: Problem) -> Family:
    """A group in n layers keeps (1 - t)^(s / n^p) of its units, so a residual stream loses less than a block inside.

    A channel of a residual stream is read and written by every block on it: what is lost there is lost to all of them,
    while a channel inside a block is missed by one layer, which least squares can mend. s is such that the weights
    shrink as much as with every group losing t, in the geometric mean over their axes. Where all groups are in equally
    many layers this is `uniform`.
    """
    layers = problem.layers
    sparing = {group.id: layers[group.id] ** -SPARING for group in problem.groups}
    scale = sum(layers.values()) / (sum(layers[group] * weight for group, weight in sparing.items()) or 1.0)

    def lost(t: float) -> Lost:
        ratios = {group: 1.0 - (1.0 - t) ** (scale * weight) for group, weight in sparing.items()}
        return {group.id: min(share(ratios[group.id], group.units), problem.most[group.id]) for group in problem.groups}

    return lost
