"""Soft pruning of units: they are set to zero again and again, and may come back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxprune.errors import UsageError
from onnxprune.steps.train.masking import due
from onnxprune.steps.train.method import Effect, Moment, Scene, TrainingMethod, training_method
from onnxprune.steps.train.units import UnitGroup
from onnxprune.support.options import option


@training_method("soft-filters", source="He et al. 2018, Soft Filter Pruning, algorithm 1")
@dataclass(frozen=True)
class SoftFilters(TrainingMethod):
    """Every so many updates the weakest units are set to zero; they are trained on, and come back where they grow.

    Their filters and biases are set to zero, of smallest L2 norm in each group; in the end also what reads them, so
    that the lossless mode of prune removes them exactly.
    """

    ratio: float = option(0.3, "Share of the units of each group.", low=0, high=1, below=True)
    interval: int = option(50, "Updates between two times.", low=1)

    def start(self, scene: Scene) -> Effect:
        """Raises UsageError where no weight reads units."""
        return _Soft(self, scene)


class _Soft(Effect):
    def __init__(self, method: SoftFilters, scene: Scene) -> None:
        super().__init__()
        self.method = method
        self.groups = [group for group in scene.groups if group.readers]
        if not self.groups:
            raise UsageError("soft-filters: no units of this model are read by weights alone")

    def after_step(self, weights: Mapping[str, Tensor], moment: Moment) -> None:
        """Set the weakest to zero."""
        if due(moment, self.method.interval):
            self._set_zeros(weights, finally_=False)

    def finish(self, weights: Mapping[str, Tensor], moment: Moment) -> None:  # noqa: ARG002
        """Once more, with what reads them."""
        self._set_zeros(weights, finally_=True)

    def _set_zeros(self, weights: Mapping[str, Tensor], *, finally_: bool) -> None:
        for group in self.groups:
            on = _stronger(group, weights, self.method.ratio)
            reading = {(place.tensor, place.axis) for place in group.readers}
            for place in group.places:
                if finally_ or (place.tensor, place.axis) not in reading:
                    with torch.no_grad():
                        weights[place.tensor].mul_(place.spread(on, weights[place.tensor].ndim, 1.0))


def _stronger(group: UnitGroup, weights: Mapping[str, Tensor], ratio: float) -> Tensor:
    """1 for the units whose filters have larger norms, 0 for the share of the smallest: shape [units]."""
    reading = {(place.tensor, place.axis) for place in group.readers}
    made = [place for place in group.places if (place.tensor, place.axis) not in reading]
    filters = [place for place in made if weights[place.tensor].ndim > 1] or made or list(group.places)
    like = weights[filters[0].tensor]
    norms = like.new_zeros(group.units)
    for place in filters:
        norms += place.squares(weights[place.tensor].detach(), group.units)
    on = like.new_ones(group.units)
    on[torch.argsort(norms, stable=True)[: min(round(ratio * group.units), group.units - 1)]] = 0.0
    return on
