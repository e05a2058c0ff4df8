"""Adaptive lasso: L1 with a price for each weight that its size at the start decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from onnxprune.steps.train.method import Effect, Moment, Scene, TrainingMethod, penalty
from onnxprune.steps.train.shrinking import soft_threshold
from onnxprune.support.options import option

# A weight of zero has no finite price; of a weight below this the price is that of this.
_SMALLEST = 1e-6


@penalty("adaptive-lasso", source="Zou 2006, The adaptive lasso and its oracle properties")
@dataclass(frozen=True)
class AdaptiveLasso(TrainingMethod):
    """Absolute weights, each over its size at the start: large ones are hardly shrunk, small ones end at zero."""

    strength: float = option(1e-5, "Factor on the sum.", low=0)
    power: float = option(1.0, "Exponent of the size at the start.", low=0)

    def start(self, scene: Scene) -> Effect:
        """On the matrices and kernels that are trained."""
        return _AdaptiveLasso(self, scene)


class _AdaptiveLasso(Effect):
    def __init__(self, method: AdaptiveLasso, scene: Scene) -> None:
        super().__init__()
        self.strength, self.sparse = method.strength, tuple(scene.matrices)
        self.buffers = {
            name: weight.detach().abs().clamp(min=_SMALLEST) ** -method.power for name, weight in scene.matrices.items()
        }

    def after_step(self, weights: Mapping[str, Tensor], moment: Moment) -> None:
        """The proximal step, each weight at its own price."""
        for name in self.sparse:
            amount = self.strength * moment.rate * self.buffers[name]
            weights[name].copy_(soft_threshold(weights[name], amount))
