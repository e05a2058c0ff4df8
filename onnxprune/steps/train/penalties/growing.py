"""Growing regularization: the weakest units are chosen first, then decay faster and faster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxprune.errors import UsageError
from onnxprune.steps.train.method import Effect, Moment, Scene, TrainingMethod, penalty
from onnxprune.support.options import option


@penalty("growing", source="Wang et al. 2021, Neural pruning via growing regularization, GReg-1, section 3.2")
@dataclass(frozen=True)
class Growing(TrainingMethod):
    """L2 on the units that are weakest at the start, growing to the strength at the end; then they are zero."""

    strength: float = option(1.0, "Factor on half the squares of these units at the end.", low=0)
    share: float = option(0.5, "Share of the units of every group that go.", low=0, high=1, below=True)

    def start(self, scene: Scene) -> Effect:
        """Raises UsageError where there are no units that could go."""
        if not scene.groups:
            raise UsageError("growing: this model has no units that could go")
        return _Growing(self, scene)


class _Growing(Effect):
    def __init__(self, method: Growing, scene: Scene) -> None:
        super().__init__()
        self.method, self.groups = method, scene.groups
        for group in scene.groups:
            sizes = (group.squares(scene.weights) / group.entries(scene.weights)).detach()
            going = torch.zeros_like(sizes)
            going[sizes.argsort(stable=True)[: int(method.share * group.units)]] = 1
            self.buffers[group.id] = going

    def after_step(self, weights: Mapping[str, Tensor], moment: Moment) -> None:
        """The proximal step of half the squares: division, by more as the training goes on."""
        decay = 1 / (1 + moment.rate * self.method.strength * moment.share)
        for group in self.groups:
            group.scale(weights, 1 - self.buffers[group.id] * (1 - decay))

    def finish(self, weights: Mapping[str, Tensor], moment: Moment) -> None:  # noqa: ARG002
        """What is left of them goes."""
        for group in self.groups:
            group.scale(weights, 1 - self.buffers[group.id])
