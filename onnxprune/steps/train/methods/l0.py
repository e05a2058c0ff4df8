"""L0 by hard concrete gates: the expected number of gates that are not zero is a term of the loss.

A gate is min(1, max(0, s (zeta - gamma) + gamma)) with s = sigmoid((log u - log(1 - u) + log_alpha) / beta), u uniform.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from onnxprune.errors import UsageError
from onnxprune.steps.train.method import Effect, Moment, Scene, TrainingMethod, training_method
from onnxprune.steps.train.units import LEVELS, WEIGHT, gated
from onnxprune.support.options import option

_BETA, _GAMMA, _ZETA = 2 / 3, -0.1, 1.1
_EDGE = 1e-6


def stretched(s: Tensor) -> Tensor:
    """From (0, 1) to [0, 1], with zeros and ones."""
    return (s * (_ZETA - _GAMMA) + _GAMMA).clamp(0, 1)


def drawn_gates(log_alpha: Tensor) -> Tensor:
    """Equations 10 and 11."""
    u = torch.empty_like(log_alpha).uniform_(_EDGE, 1 - _EDGE)
    return stretched(torch.sigmoid((u.log() - (-u).log1p() + log_alpha) / _BETA))


def chance_not_zero(log_alpha: Tensor) -> Tensor:
    """Equation 12: the probability that a gate is not zero."""
    return torch.sigmoid(log_alpha - _BETA * log(-_GAMMA / _ZETA))


def final_gates(log_alpha: Tensor) -> Tensor:
    """Equation 13: the gates of evaluations and of the file."""
    return stretched(torch.sigmoid(log_alpha))


@training_method(
    "l0",
    source="Louizos, Welling and Kingma 2018, Learning sparse neural networks through L0 regularization, eq. 9 to 13",
)
@dataclass(frozen=True)
class L0(TrainingMethod):
    """Learn gates on weights, or units, that are exactly zero or one most of the time; each open one has a price."""

    strength: float = option(1.0, "Price of all weights together, a share of which is paid.", low=0)
    level: str = option("weight", "weight or unit.", choices=lambda: LEVELS)
    open: float = option(0.9, "Probability at the start that a gate is open.", low=0.01, high=0.99)
    speed: float = option(10.0, "Factor on the learning rate of the gates.", low=0)

    def start(self, scene: Scene) -> Effect:
        """Raises UsageError where no weight reads units."""
        if self.level != WEIGHT and not scene.gateable:
            raise UsageError("l0: no units of this model are read by weights alone; try level=weight")
        return _Gates(self, scene)


class _Gates(Effect):
    """Parameters are log alpha of each gate, prices how many weights each represents."""

    def __init__(self, method: L0, scene: Scene) -> None:
        super().__init__()
        self.method, self.rate, self.groups = method, method.speed, scene.gateable
        if method.level == WEIGHT:
            self.sparse = tuple(scene.matrices)
            self.prices = {name: torch.ones_like(weight) for name, weight in scene.matrices.items()}
        else:
            self.prices = {group.id: group.entries(scene.weights) for group in scene.gateable}
        self.total = sum(float(price.sum()) for price in self.prices.values())
        for name, price in self.prices.items():
            self.parameters[name] = torch.nn.Parameter(torch.full_like(price, log(method.open / (1 - method.open))))

    def weights(self, weights: Mapping[str, Tensor], moment: Moment, *, training: bool) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Times the gates, drawn once for a batch."""
        gates = {name: (drawn_gates if training else final_gates)(each) for name, each in self.parameters.items()}
        if self.method.level == WEIGHT:
            return {name: weights[name] * gates[name] for name in self.sparse}
        return gated(weights, self.groups, gates)

    def term(self, weights: Mapping[str, Tensor], moment: Moment) -> Tensor:  # noqa: ARG002
        """The expected share of the weights that are not zero, times the strength."""
        prices = self.prices.items()
        each = [(chance_not_zero(self.parameters[name]) * price).sum() for name, price in prices]
        return self.method.strength / self.total * torch.stack(each).sum()

    def scores(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:  # noqa: ARG002
        """The log alpha of gates on units."""
        return {} if self.method.level == WEIGHT else dict(self.parameters)

    def notes(self, weights: Mapping[str, Tensor]) -> Iterator[str]:  # noqa: ARG002
        """How many gates are open."""
        shut = sum(int((final_gates(each) == 0).sum()) for each in self.parameters.values())
        yield f"{shut} of {sum(each.numel() for each in self.parameters.values())} gates are shut"
