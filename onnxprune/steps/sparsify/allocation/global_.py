"""One threshold for all weights."""

from __future__ import annotations

import numpy as np

from onnxprune.steps.sparsify.base import Sharing, sparsity_allocation


@sparsity_allocation("global", by_scores=True)
def global_share(sharing: Sharing) -> dict[str, float]:
    """The weights of lowest score go, wherever they are: layers get the sparsity that one threshold gives them."""
    keys = list(sharing.matrices)
    flat = np.concatenate([np.ravel(sharing.scores[key]) for key in keys])
    owner = np.repeat(np.arange(len(keys)), [np.size(sharing.scores[key]) for key in keys])
    lowest = np.argsort(flat, kind="stable")[: round(sharing.sparsity * len(flat))]
    zeros = np.bincount(owner[lowest], minlength=len(keys))
    return {key: float(count) / np.size(sharing.scores[key]) for key, count in zip(keys, zeros, strict=True)}
