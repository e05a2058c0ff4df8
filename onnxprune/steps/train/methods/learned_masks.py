"""Binary masks that are trained along with the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxprune.errors import UsageError
from onnxprune.steps.train.method import Effect, Moment, Scene, TrainingMethod, training_method
from onnxprune.steps.train.spending import Spending
from onnxprune.steps.train.units import LEVELS, WEIGHT, gated
from onnxprune.support.options import option

HARD, SOFT = KINDS = ("straight-through", "sigmoid")


def straight_through(logits: Tensor) -> Tensor:
    """1 where the logit is above zero, else 0; the gradient is that of the sigmoid."""
    soft = torch.sigmoid(logits)
    return (logits > 0).to(soft.dtype) + soft - soft.detach()


@training_method(
    "learned-masks",
    source="Bengio, Leonard and Courville 2013 (straight-through); Srinivas, Subramanya and Babu 2017, Training sparse "
    "neural networks; Savarese, Silva and Maire 2020, Winning the lottery with continuous sparsification "
    "(sigmoid); Guo et al. 2020, DMCP: differentiable Markov channel pruning (cost)",
)
@dataclass(frozen=True)
class LearnedMasks(TrainingMethod):
    """Train a mask on every unit, or weight, along with the weights, down to a share of the MACs, or of the weights."""

    target: float = option(0.5, "Share of the MACs that is left; on weights the share of the weights.", low=0, high=1)
    strength: float = option(10.0, "Factor on the logarithm of how far the cost is above the target.", low=0)
    level: str = option("unit", "weight or unit.", choices=lambda: LEVELS)
    kind: str = option(HARD, "straight-through, or sigmoid with a temperature.", choices=lambda: KINDS)
    sharpest: float = option(100.0, "What logits are multiplied with at the end, from 1 at the start (sigmoid).", low=1)
    speed: float = option(10.0, "Factor on the learning rate of the masks.", low=0)

    def start(self, scene: Scene) -> Effect:
        """Raises UsageError where no weight reads units."""
        if self.level != WEIGHT and not scene.gateable:
            raise UsageError("learned-masks: no units of this model are read by weights alone; try level=weight")
        return _Masks(self, scene)


class _Masks(Effect):
    """Parameters are the logits of the masks."""

    def __init__(self, method: LearnedMasks, scene: Scene) -> None:
        super().__init__()
        self.method, self.rate, self.groups = method, method.speed, scene.gateable
        self.spent = Spending(scene.analysis)
        if method.level == WEIGHT:
            self.sparse = tuple(scene.matrices)
            like = {name: weight.detach().abs() for name, weight in scene.matrices.items()}
        else:
            like = {group.id: group.squares(scene.weights).detach() for group in scene.gateable}
        for name, each in like.items():
            # Masks begin in the order of sizes, so that it is not the noise of gradients that says which go first.
            ranks = each.flatten().argsort(stable=True).argsort().reshape(each.shape) / max(each.numel() - 1, 1)
            self.parameters[name] = torch.nn.Parameter(0.5 + 0.1 * ranks.float())

    def _masks(self, moment: Moment, *, training: bool) -> dict[str, Tensor]:
        if not training:
            return {name: (logits > 0).float() for name, logits in self.parameters.items()}
        if self.method.kind == HARD:
            return {name: straight_through(logits) for name, logits in self.parameters.items()}
        sharp = self.method.sharpest**moment.share
        return {name: torch.sigmoid(sharp * logits) for name, logits in self.parameters.items()}

    def weights(self, weights: Mapping[str, Tensor], moment: Moment, *, training: bool) -> Mapping[str, Tensor]:
        """Times the masks; those of evaluations are zeros and ones."""
        masks = self._masks(moment, training=training)
        if self.method.level == WEIGHT:
            return {name: weights[name] * masks[name] for name in self.sparse}
        return gated(weights, self.groups, masks)

    def share(self, masks: Mapping[str, Tensor]) -> Tensor:
        """The share of the cost that masks leave."""
        if self.method.level == WEIGHT:
            kept = torch.stack([mask.sum() for mask in masks.values()]).sum()
            return kept / sum(mask.numel() for mask in masks.values())
        return self.spent({name: mask.sum() for name, mask in masks.items()})

    def term(self, weights: Mapping[str, Tensor], moment: Moment) -> Tensor | None:  # noqa: ARG002
        """How far the cost is above the target, on a logarithmic scale; nothing where it is not."""
        share = self.share(self._masks(moment, training=True))
        return self.method.strength * torch.relu(torch.log(share / max(self.method.target, 1e-6)))

    def scores(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:  # noqa: ARG002
        """The logits of masks on units."""
        return {} if self.method.level == WEIGHT else dict(self.parameters)

    def notes(self, weights: Mapping[str, Tensor]) -> Iterator[str]:  # noqa: ARG002
        """The cost that is left."""
        share = float(self.share(self._masks(Moment(1.0), training=False)))
        of = "weights" if self.method.level == WEIGHT else "MACs"
        yield f"{share:.1%} of the {of} are left, {self.method.target:.1%} were asked for"
