"""Soft orthogonality: filters that are unlike each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxprune.steps.train.method import Effect, Moment, Scene, TrainingMethod, penalty
from onnxprune.steps.train.shrinking import as_matrices
from onnxprune.support.options import option


@penalty("orthogonality", source="Bansal, Chen and Wang 2018, Can we gain more from orthogonality")
@dataclass(frozen=True)
class Orthogonality(TrainingMethod):
    """The squared distance of the filters' inner products from those of orthonormal ones."""

    strength: float = option(1e-4, "Factor on it.", low=0)

    def start(self, scene: Scene) -> Effect:
        """On the matrices and kernels that are trained."""
        return _Orthogonality(self.strength, scene)


class _Orthogonality(Effect):
    def __init__(self, strength: float, scene: Scene) -> None:
        super().__init__()
        self.strength = strength
        self.filters = {name: scene.kernels.get(name) for name, weight in scene.matrices.items() if weight.ndim > 1}

    def term(self, weights: Mapping[str, Tensor], moment: Moment) -> Tensor:  # noqa: ARG002
        """|W W' - 1|^2 or |W' W - 1|^2, whichever is the smaller matrix; a kernel is filters x the rest."""
        matrices = (as_matrices(weights[name], filters) for name, filters in self.filters.items())
        return self.strength * torch.stack([self._distance(each) for each in matrices]).sum()

    def _distance(self, matrix: Tensor) -> Tensor:
        wide = matrix if matrix.shape[-2] <= matrix.shape[-1] else matrix.mT
        product = wide @ wide.mT
        return (product - torch.eye(product.shape[-1], dtype=product.dtype, device=product.device)).square().sum()
