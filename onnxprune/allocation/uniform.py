"""Every group loses the same share."""

from __future__ import annotations

from collections.abc import Mapping

from onnxprune.allocation.base import Scores, allocation, share


@allocation("uniform")
def uniform(scores: Mapping[str, Scores], ratio: float) -> dict[str, int]:
    """`ratio` of the units of each group, rounded down."""
    return {group: share(ratio, len(values)) for group, values in scores.items()}
