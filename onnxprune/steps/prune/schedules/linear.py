"""Equal steps."""

from __future__ import annotations

from onnxprune.steps.prune.schedule import schedule


@schedule("linear")
def linear(left: float, done: float) -> float:
    """Every step removes the same share of the original."""
    return 1 - (1 - left) * done
