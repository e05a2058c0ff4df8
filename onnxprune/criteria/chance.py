"""The baseline that every other criterion has to beat."""

from __future__ import annotations

import zlib

import numpy as np

from onnxprune.coupling import Group
from onnxprune.criteria.base import Context, Scores, criterion


@criterion("random")
def random(group: Group, context: Context) -> Scores:
    """Uniform in [0, 1), from the seed and the name of the group, so that the order of groups does not matter."""
    return np.random.default_rng([context.seed, zlib.crc32(group.id.encode())]).random(group.units)
