"""One ranking over all groups: weak groups lose more than strong ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxprune.allocation.base import Scores, allocation, share


@allocation("global")
def global_(scores: Mapping[str, Scores], ratio: float) -> dict[str, int]:
    """The weakest `ratio` of all units, after each group's scores are divided by their mean.

    The mean takes out that layers differ in the scale of their weights; what is left is how uneven a group is. The
    strongest unit of each group is not in the ranking, so no group can lose its last one.
    """
    total = sum(len(values) for values in scores.values())
    ranked: list[tuple[float, str]] = []
    for group, values in scores.items():
        mean = float(np.abs(values).mean()) or 1.0
        ranked.extend((float(value) / mean, group) for value in np.sort(values)[:-1])
    ranked.sort(key=lambda item: item[0])
    lost = dict.fromkeys(scores, 0)
    for _, group in ranked[: share(ratio, total)]:
        lost[group] += 1
    return lost
