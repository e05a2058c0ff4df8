"""Made-up calibration data for any model with a dynamic batch."""

from __future__ import annotations

import numpy as np

from onnxprune.analysis.groups import Analysis
from onnxprune.data.base import Batch, Data
from onnxprune.model.signature import ports_of

SIZES = (13, 11)  # unequal batches
CLASSES = 3


def random_data(analysis: Analysis, seed: int = 0, *, labelled: bool = True) -> Data:
    """Two batches of normal numbers, with labels or without."""
    rng = np.random.default_rng(seed)
    batches = []
    for size in SIZES:
        shapes = {port.name: (size, *port.shape[1:]) for port in ports_of(analysis.model)}
        feed = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
        batches.append(Batch(feed, rng.permutation(size) % CLASSES if labelled else None))
    return Data("random numbers", labelled, lambda: iter(batches))
