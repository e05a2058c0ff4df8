"""The random baseline: its seed and the name of a group decide, nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from onnxprune.analysis.groups import Group
from onnxprune.dims import Atom
from onnxprune.pipeline.run import inspect
from onnxprune.steps.prune.criteria.base import ScoringContext, WeightReader
from onnxprune.steps.prune.criteria.random import random


def test_seed_and_name_decide(digits: dict[str, Path]) -> None:
    analysis = inspect(digits["lstm"])
    context, other = (ScoringContext(analysis, WeightReader(analysis), seed) for seed in (1, 2))
    a, b = Group("a", Atom(50), []), Group("b", Atom(50), [])
    np.testing.assert_array_equal(random(a, context), random(Group("a", Atom(50), []), context))
    assert not np.array_equal(random(a, context), random(b, context))
    assert not np.array_equal(random(a, context), random(a, other))


def test_uniform_between_0_and_1(digits: dict[str, Path]) -> None:
    analysis = inspect(digits["lstm"])
    values = random(Group("a", Atom(10_000), []), ScoringContext(analysis, WeightReader(analysis)))
    assert values.min() >= 0
    assert values.max() < 1
    np.testing.assert_allclose(np.quantile(values, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.02)
