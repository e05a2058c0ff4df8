"""Elastic net: L1 and L2 together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from onnxprune.steps.train.method import Effect, Moment, Scene, TrainingMethod, penalty
from onnxprune.steps.train.shrinking import soft_threshold
from onnxprune.support.options import option


@penalty("elastic-net", source="Zou and Hastie 2005, Regularization and variable selection via the elastic net")
@dataclass(frozen=True)
class ElasticNet(TrainingMethod):
    """A mix of absolute and squared weights: weights that go together stay or go together."""

    strength: float = option(1e-4, "Factor on the mix.", low=0)
    mix: float = option(0.5, "Share of the absolute weights; the rest is half the sum of squares.", low=0, high=1)

    def start(self, scene: Scene) -> Effect:
        """On the matrices and kernels that are trained."""
        return _ElasticNet(self, scene)


class _ElasticNet(Effect):
    def __init__(self, method: ElasticNet, scene: Scene) -> None:
        super().__init__()
        self.method, self.sparse = method, tuple(scene.matrices)

    def after_step(self, weights: Mapping[str, Tensor], moment: Moment) -> None:
        """The proximal step: towards zero by the first part, then divided for the second."""
        amount, mix = self.method.strength * moment.rate, self.method.mix
        for name in self.sparse:
            weights[name].copy_(soft_threshold(weights[name], amount * mix) / (1 + amount * (1 - mix)))
