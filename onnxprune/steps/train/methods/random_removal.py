"""Gradual random removal: the control of everything that chooses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxprune.errors import UsageError
from onnxprune.steps.train.method import Effect, Moment, Scene, TrainingMethod, training_method
from onnxprune.steps.train.units import LEVELS, WEIGHT, gated
from onnxprune.support.options import option


@training_method(
    "random-removal",
    source="the cubic schedule is Zhu and Gupta 2017, To prune, or not to prune, equation 1; which goes is random, as "
    "in Gale et al. 2019, The state of sparsity in deep neural networks, section 3",
)
@dataclass(frozen=True)
class RandomRemoval(TrainingMethod):
    """Random weights, or units, go for good while training, many at first and few at the end."""

    sparsity: float = option(0.5, "Share that is removed at the end.", low=0, high=1, below=True)
    level: str = option("weight", "weight or unit.", choices=lambda: LEVELS)
    until: float = option(0.75, "Share of the training at which all of them are removed.", low=0, high=1)

    def start(self, scene: Scene) -> Effect:
        """Raises UsageError where no weight reads units."""
        if self.level != WEIGHT and not scene.gateable:
            raise UsageError("random-removal: no units of this model are read by weights alone; try level=weight")
        return _Removal(self, scene)


class _Removal(Effect):
    """Buffers hold the order in which entries go: in [0, 1), uniform."""

    def __init__(self, method: RandomRemoval, scene: Scene) -> None:
        super().__init__()
        self.method, self.groups = method, scene.gateable
        generator = torch.Generator().manual_seed(scene.seed)
        if method.level == WEIGHT:
            sizes = {name: weight.numel() for name, weight in scene.matrices.items()}
        else:
            sizes = {group.id: group.units for group in scene.gateable}
        device = next(iter(scene.weights.values())).device
        for name, size in sizes.items():
            self.buffers[name] = (torch.randperm(size, generator=generator) / size).to(device)
        self.sparse = tuple(scene.matrices)

    def removed(self, moment: Moment) -> float:
        """The share that is removed."""
        done = min(moment.share / self.method.until, 1.0) if self.method.until else 1.0
        return self.method.sparsity * (1 - (1 - done) ** 3)

    def weights(self, weights: Mapping[str, Tensor], moment: Moment, *, training: bool) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Those that are left."""
        kept = {name: order >= self.removed(moment) for name, order in self.buffers.items()}
        if self.method.level == WEIGHT:
            return {name: weights[name] * mask.reshape(weights[name].shape) for name, mask in kept.items()}
        return gated(weights, self.groups, {name: mask.float() for name, mask in kept.items()})
