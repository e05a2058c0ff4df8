"""Large steps first."""

from __future__ import annotations

from onnxprune.steps.prune.schedule import schedule


@schedule("cubic")
def cubic(left: float, done: float) -> float:
    """Much at first, little at the end.

    Zhu and Gupta 2017, "To prune, or not to prune", equation 1.
    """
    return left + (1 - left) * (1 - done) ** 3
