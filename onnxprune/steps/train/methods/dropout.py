"""Dropout of weights or units while training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp

import torch
from torch import Tensor

from onnxprune.errors import UsageError
from onnxprune.steps.train.method import Effect, Moment, Scene, TrainingMethod, training_method
from onnxprune.steps.train.units import LEVELS, WEIGHT, gated
from onnxprune.support.options import option


@training_method(
    "dropout",
    source="Srivastava et al. 2014, Dropout (units); Wan et al. 2013, DropConnect (weights); Morerio et al. 2017, "
    "Curriculum dropout",
)
@dataclass(frozen=True)
class Dropout(TrainingMethod):
    """Leave out a random share of the units, or of the weights, in every update; all of them count at the end."""

    rate: float = option(0.1, "Share that is left out.", low=0, high=1, below=True)
    level: str = option("unit", "weight or unit.", choices=lambda: LEVELS)
    curriculum: float = option(0.0, "How fast the share grows from zero over the training, like 10; 0: at once.", low=0)

    def start(self, scene: Scene) -> Effect:
        """Raises UsageError where no weight reads units."""
        if self.level != WEIGHT and not scene.gateable:
            raise UsageError("dropout: no units of this model are read by weights alone; try level=weight")
        return _Dropping(self, scene)


class _Dropping(Effect):
    def __init__(self, method: Dropout, scene: Scene) -> None:
        super().__init__()
        self.method, self.names, self.groups = method, tuple(scene.matrices), scene.gateable

    def dropped(self, moment: Moment) -> float:
        """The share that is left out in an update."""
        grown = 1 - exp(-self.method.curriculum * moment.share) if self.method.curriculum else 1.0
        return self.method.rate * grown

    def weights(self, weights: Mapping[str, Tensor], moment: Moment, *, training: bool) -> Mapping[str, Tensor]:
        """Those that are left, larger by as much as makes their mean what it was."""
        if not training:
            return {}
        left = 1 - self.dropped(moment)
        if self.method.level == WEIGHT:
            return {name: weights[name] * _kept(weights[name].shape, left, weights[name]) for name in self.names}
        like = next(iter(weights.values()))
        return gated(weights, self.groups, {group.id: _kept((group.units,), left, like) for group in self.groups})


def _kept(shape: tuple[int, ...], left: float, like: Tensor) -> Tensor:
    """1 / left with probability `left`, else 0."""
    return torch.empty(shape, dtype=like.dtype, device=like.device).bernoulli_(left) / left
