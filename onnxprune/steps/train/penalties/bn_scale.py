"""L1 on the scales of normalizations: network slimming."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxprune.errors import UsageError
from onnxprune.ops.learned import SCALE, learned
from onnxprune.steps.train.method import Effect, Moment, Scene, TrainingMethod, penalty
from onnxprune.steps.train.parameters import trainable
from onnxprune.steps.train.shrinking import soft_threshold
from onnxprune.support.options import option


@penalty(
    "bn-scale",
    source="Liu et al. 2017, Learning efficient convolutional networks through network slimming, equation 1, by its "
    "proximal step in place of a subgradient",
)
@dataclass(frozen=True)
class NormScale(TrainingMethod):
    """Absolute scales of normalizations, also of those put in while training; the sizes are scores for `learned`."""

    strength: float = option(1e-4, "Factor on the sum of absolute scales.", low=0)

    def start(self, scene: Scene) -> Effect:
        """Raises UsageError where there is no normalization."""
        slots = trainable(scene.analysis.model)
        names = [name for name, slot in slots.items() if slot.role == SCALE and learned(slot.node).norm]
        scales = tuple(name for name in (*names, *(norm.scale for norm in scene.inserted)) if name in scene.roles)
        if not scales:
            raise UsageError("bn-scale: there is no normalization to train; normalization=batch puts some in")
        return _NormScale(self.strength, scene, scales)


class _NormScale(Effect):
    def __init__(self, strength: float, scene: Scene, scales: tuple[str, ...]) -> None:
        super().__init__()
        self.strength, self.scales, self.groups = strength, scales, scene.groups

    def after_step(self, weights: Mapping[str, Tensor], moment: Moment) -> None:
        """The proximal step."""
        for name in self.scales:
            weights[name].copy_(soft_threshold(weights[name], self.strength * moment.rate))

    def scores(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The mean absolute scale of each unit, of groups that have some."""
        found = {}
        for group in self.groups:
            places = [place for place in group.places if place.tensor in self.scales]
            if places:
                sizes = [place.squares(weights[place.tensor].abs().sqrt(), group.units) for place in places]
                found[group.id] = torch.stack(sizes).mean(0)
        return found
