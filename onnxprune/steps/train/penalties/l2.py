"""L2: half the sum of squared weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxprune.steps.train.method import Effect, Moment, Scene, TrainingMethod, penalty
from onnxprune.support.options import option


@penalty("l2", source="Hoerl and Kennard 1970, Ridge regression")
@dataclass(frozen=True)
class L2(TrainingMethod):
    """Half the sum of squared weights, as a term of the loss; the weight decay of adamw is another thing."""

    strength: float = option(1e-4, "Factor on it.", low=0)

    def start(self, scene: Scene) -> Effect:
        """On the matrices and kernels that are trained."""
        return _L2(self.strength, scene)


class _L2(Effect):
    def __init__(self, strength: float, scene: Scene) -> None:
        super().__init__()
        self.strength, self.names = strength, tuple(scene.matrices)

    def term(self, weights: Mapping[str, Tensor], moment: Moment) -> Tensor:  # noqa: ARG002
        """It is smooth, so its gradient does."""
        return self.strength / 2 * torch.stack([weights[name].square().sum() for name in self.names]).sum()
