"""Group lasso over the groups of units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from onnxprune.errors import UsageError
from onnxprune.steps.train.method import Effect, Moment, Scene, TrainingMethod, penalty
from onnxprune.steps.train.shrinking import shrink_units
from onnxprune.support.options import option


@penalty(
    "group-lasso",
    source="Yuan and Lin 2006, Model selection and estimation in regression with grouped variables; "
    "Wen et al. 2016, Learning structured sparsity in deep neural networks",
)
@dataclass(frozen=True)
class GroupLasso(TrainingMethod):
    """The norm of all that belongs to a unit: whole units end at exactly zero, and prune with lossless removes them."""

    strength: float = option(1e-4, "Factor on the norms, each times the root of its number of weights.", low=0)

    def start(self, scene: Scene) -> Effect:
        """On what makes a unit, what reads it, its bias and its normalizations. Raises UsageError without groups."""
        if not scene.groups:
            raise UsageError("group-lasso: this model has no units that could go; l1 makes single weights zero")
        return _GroupLasso(self.strength, scene)


class _GroupLasso(Effect):
    def __init__(self, strength: float, scene: Scene) -> None:
        super().__init__()
        self.strength, self.groups, self.trained = strength, scene.groups, scene.weights

    def after_step(self, weights: Mapping[str, Tensor], moment: Moment) -> None:
        """The proximal step of one group after the other."""
        for group in self.groups:
            shrink_units(group, weights, self.strength * moment.rate)

    def notes(self, weights: Mapping[str, Tensor]) -> Iterator[str]:  # noqa: ARG002
        """How many units are zero; the file has the scales of normalizations in its kernels."""
        zero = sum(int((group.squares(self.trained) == 0).sum()) for group in self.groups)
        yield f"{zero} of {sum(group.units for group in self.groups)} units are exactly zero"
