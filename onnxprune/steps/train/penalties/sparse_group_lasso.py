"""Sparse group lasso: L1 and group lasso together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from onnxprune.steps.train.method import Effect, Moment, Scene, TrainingMethod, penalty
from onnxprune.steps.train.shrinking import shrink_units, soft_threshold
from onnxprune.support.options import option


@penalty("sparse-group-lasso", source="Simon et al. 2013, A sparse-group lasso, equation 3")
@dataclass(frozen=True)
class SparseGroupLasso(TrainingMethod):
    """A mix of l1 and group-lasso: units end at zero, and single weights of those that stay."""

    strength: float = option(1e-4, "Factor on the mix.", low=0)
    mix: float = option(0.5, "Share of the absolute weights; the rest is on units.", low=0, high=1)

    def start(self, scene: Scene) -> Effect:
        """On the weights of units, and on the matrices and kernels that are trained."""
        return _SparseGroupLasso(self, scene)


class _SparseGroupLasso(Effect):
    def __init__(self, method: SparseGroupLasso, scene: Scene) -> None:
        super().__init__()
        self.method, self.groups, self.sparse = method, scene.groups, tuple(scene.matrices)

    def after_step(self, weights: Mapping[str, Tensor], moment: Moment) -> None:
        """The proximal step: that of l1, then that of the groups."""
        amount, mix = self.method.strength * moment.rate, self.method.mix
        for name in self.sparse:
            weights[name].copy_(soft_threshold(weights[name], amount * mix))
        for group in self.groups:
            shrink_units(group, weights, amount * (1 - mix))
