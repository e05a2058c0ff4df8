"""L1: the sum of absolute weights, by its proximal step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from onnxprune.steps.train.method import Effect, Moment, Scene, TrainingMethod, penalty
from onnxprune.support.options import option


def soft_threshold(weight: Tensor, amount: float | Tensor) -> Tensor:
    """Every entry that much nearer to zero, and zero where it was nearer than that."""
    return weight.sign() * (weight.abs() - amount).clamp(min=0)


@penalty("l1", source="Tibshirani 1996; the step is Parikh and Boyd 2014, Proximal Algorithms, section 6.5.2")
@dataclass(frozen=True)
class L1(TrainingMethod):
    """Sum of absolute weights: ends in exact zeros, weight by weight."""

    strength: float = option(1e-4, "Factor on the sum of absolute weights.", low=0)

    def start(self, scene: Scene) -> Effect:
        """On matrices and kernels."""
        return _Shrinking(self.strength, scene)


class _Shrinking(Effect):
    def __init__(self, strength: float, scene: Scene) -> None:
        super().__init__()
        self.strength, self.sparse = strength, tuple(scene.matrices)

    def after_step(self, weights: Mapping[str, Tensor], moment: Moment) -> None:
        """The proximal step with the rate of the update."""
        for name in self.sparse:
            weights[name].copy_(soft_threshold(weights[name], self.strength * moment.rate))
