"""The nuclear norm: few singular values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxprune.steps.train.method import Effect, Moment, Scene, TrainingMethod, penalty
from onnxprune.steps.train.shrinking import as_matrices
from onnxprune.support.options import option


@penalty("nuclear", source="Cai, Candes and Shen 2010, A singular value thresholding algorithm")
@dataclass(frozen=True)
class Nuclear(TrainingMethod):
    """The sum of singular values: matrices end with a low rank. A kernel counts as filters x the rest."""

    strength: float = option(1e-4, "Factor on the sum.", low=0)

    def start(self, scene: Scene) -> Effect:
        """On the matrices and kernels that are trained."""
        return _Nuclear(self.strength, scene)


class _Nuclear(Effect):
    def __init__(self, strength: float, scene: Scene) -> None:
        super().__init__()
        self.strength = strength
        self.filters = {name: scene.kernels.get(name) for name, weight in scene.matrices.items() if weight.ndim > 1}

    def after_step(self, weights: Mapping[str, Tensor], moment: Moment) -> None:
        """The proximal step: every singular value so much smaller."""
        for name, filters in self.filters.items():
            left, sizes, right = torch.linalg.svd(as_matrices(weights[name], filters), full_matrices=False)
            smaller = (sizes - self.strength * moment.rate).clamp(min=0)
            moved = weights[name] if filters is None else weights[name].movedim(filters, 0)
            moved.copy_(((left * smaller.unsqueeze(-2)) @ right).reshape(moved.shape))
