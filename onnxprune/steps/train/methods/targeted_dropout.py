"""Targeted dropout: what is small is dropped at random until the network can do without it."""

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
    "targeted-dropout",
    source="Gomez et al. 2019, Learning sparse networks using targeted dropout",
)
@dataclass(frozen=True)
class TargetedDropout(TrainingMethod):
    """Drop the smallest weights, or units, at random in every update; at the end they are removed."""

    sparsity: float = option(
        0.5, "Share of the smallest, that are dropped from and removed at the end.", low=0, high=1, below=True
    )
    rate: float = option(0.5, "Probability that one of them is dropped in an update.", low=0, high=1)
    level: str = option("weight", "weight or unit.", choices=lambda: LEVELS)
    ramp: float = option(0.5, "Share of the training in which the sparsity grows from zero.", low=0, high=1)

    def start(self, scene: Scene) -> Effect:
        """Raises UsageError where no weight reads units."""
        if self.level != WEIGHT and not scene.gateable:
            raise UsageError("targeted-dropout: no units of this model are read by weights alone; try level=weight")
        return _Targeted(self, scene)


class _Targeted(Effect):
    def __init__(self, method: TargetedDropout, scene: Scene) -> None:
        super().__init__()
        self.method, self.groups = method, scene.gateable
        self.sparse = tuple(scene.matrices)

    def weights(self, weights: Mapping[str, Tensor], moment: Moment, *, training: bool) -> Mapping[str, Tensor]:
        """Without those that were drawn; evaluations see the targeted ones at zero."""
        grown = min(moment.share / self.method.ramp, 1.0) if self.method.ramp else 1.0
        rate = self.method.rate if training else 1.0
        if self.method.level == WEIGHT:
            sizes = {name: weights[name].detach().abs() for name in self.sparse}
        else:
            sizes = {group.id: group.squares(weights).detach() for group in self.groups}
        kept = {name: _kept(each, self.method.sparsity * grown, rate) for name, each in sizes.items()}
        if self.method.level == WEIGHT:
            return {name: weights[name] * kept[name] for name in self.sparse}
        return gated(weights, self.groups, kept)


def _kept(sizes: Tensor, share: float, rate: float) -> Tensor:
    """0 for those of the smallest that are dropped, else 1; of the shape of `sizes`."""
    kept = torch.ones_like(sizes).flatten()
    targeted = sizes.flatten().argsort(stable=True)[: int(share * sizes.numel())]
    kept[targeted] = (torch.rand(len(targeted), device=sizes.device) >= rate).to(sizes.dtype)
    return kept.reshape(sizes.shape)
