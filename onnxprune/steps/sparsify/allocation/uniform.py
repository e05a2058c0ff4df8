"""The same sparsity everywhere."""

from __future__ import annotations

from onnxprune.steps.sparsify.base import Sharing, sparsity_allocation


@sparsity_allocation("uniform")
def uniform_share(sharing: Sharing) -> dict[str, float]:
    """Every weight gets the same share of zeros."""
    return dict.fromkeys(sharing.matrices, sharing.sparsity)
