"""Dropout of weights or units while training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxprune.errors import UsageError
from onnxprune.steps.train.method import Effect, Moment, Scene, TrainingMethod, training_method
from onnxprune.steps.train.units import gated
from onnxprune.support.options import option

LEVELS = ("unit", "weight")


@training_method("dropout", source="Srivastava et al. 2014 (units); Wan et al. 2013, DropConnect (weights)")
@dataclass(frozen=True)
class Dropout(TrainingMethod):
    """Leave out a random share of the units, or of the weights, in every update; all of them count at the end."""

    rate: float = option(0.1, "Share that is left out.", low=0, high=1, below=True)
    level: str = option("unit", "unit or weight.", choices=lambda: LEVELS)

    def start(self, scene: Scene) -> Effect:
        """Raises UsageError where no weight reads units."""
        if self.level == "unit" and not any(group.readers for group in scene.groups):
            raise UsageError("dropout: no units of this model are read by weights alone; try dropout:0.1,level=weight")
        return _Dropping(self, scene)


class _Dropping(Effect):
    def __init__(self, method: Dropout, scene: Scene) -> None:
        super().__init__()
        self.method, self.names = method, tuple(scene.matrices)
        self.groups = [group for group in scene.groups if group.readers] if method.level == "unit" else []

    def weights(self, weights: Mapping[str, Tensor], moment: Moment, *, training: bool) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Those that are left, larger by as much as makes their mean what it was."""
        if not training:
            return {}
        if self.method.level == "weight":
            return {name: weights[name] * self._kept(weights[name].shape, weights[name]) for name in self.names}
        gates = {group.id: self._kept((group.units,), weights[group.readers[0].tensor]) for group in self.groups}
        return gated(weights, self.groups, gates)

    def _kept(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """1 / (1 - rate) with probability 1 - rate, else 0."""
        left = 1 - self.method.rate
        return torch.empty(shape, dtype=like.dtype, device=like.device).bernoulli_(left) / left
