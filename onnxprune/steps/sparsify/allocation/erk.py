"""Erdos-Renyi kernels."""

from __future__ import annotations

from onnxprune.analysis.sparse_shares import erk_shares
from onnxprune.steps.sparsify.base import Sharing, sparsity_allocation


@sparsity_allocation("erk")
def erk_share(sharing: Sharing) -> dict[str, float]:
    """The density of a layer goes with the sum of its sizes over their product: small ones stay denser."""
    shapes = {key: each.stored_shape for key, each in sharing.matrices.items()}
    return erk_shares(shapes, {key: sharing.size(key) for key in sharing.matrices}, sharing.sparsity)
