"""L1: the sum of absolute weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from onnxprune.steps.train.method import Effect, Moment, Scene, TrainingMethod, penalty
from onnxprune.steps.train.shrinking import soft_threshold
from onnxprune.support.options import option


@penalty("l1", source="Tibshirani 1996, Regression shrinkage and selection via the lasso")
@dataclass(frozen=True)
class L1(TrainingMethod):
    """The sum of absolute weights; single weights end at exactly zero."""

    strength: float = option(1e-4, "Factor on the sum.", low=0)

    def start(self, scene: Scene) -> Effect:
        """On the matrices and kernels that are trained."""
        return _L1(self.strength, scene)


class _L1(Effect):
    def __init__(self, strength: float, scene: Scene) -> None:
        super().__init__()
        self.strength, self.sparse = strength, tuple(scene.matrices)

    def after_step(self, weights: Mapping[str, Tensor], moment: Moment) -> None:
        """The proximal step."""
        for name in self.sparse:
            weights[name].copy_(soft_threshold(weights[name], self.strength * moment.rate))
