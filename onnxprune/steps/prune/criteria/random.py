"""The baseline that every other criterion has to beat."""

from __future__ import annotations

import zlib

import numpy as np

from onnxprune.analysis.groups import Group
from onnxprune.steps.prune.criteria.base import Scores, ScoringContext, criterion


@criterion(
    "random", needs=(), cost="nothing", source="the usual control, as in Li et al. 2017, section 4.4", comparable=True
)
def random(group: Group, context: ScoringContext) -> Scores:
    """Chance, uniform in [0, 1); the seed and the name of the group decide, not the order of groups."""
    return np.random.default_rng([context.seed, zlib.crc32(group.id.encode())]).random(group.units)
