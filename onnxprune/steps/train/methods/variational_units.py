"""Structured Bayesian pruning: noise on whole units, and units that are all noise go.

Each unit is multiplied by theta = exp(z), z from a normal distribution that is cut off to [a, b] = [-20, 0]; the prior
of z is uniform there. With u = (a - mu) / sigma, v = (b - mu) / sigma and Z = Phi(v) - Phi(u) (Neklyudov et al.):

    KL    = log(b - a) - 1/2 log(2 pi e sigma^2) - log Z - (u phi(u) - v phi(v)) / (2 Z)
    E     = exp(mu + sigma^2 / 2) (Phi(v - sigma) - Phi(u - sigma)) / Z
    E[^2] = exp(2 mu + 2 sigma^2) (Phi(v - 2 sigma) - Phi(u - 2 sigma)) / Z
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import e, log, pi

import torch
from torch import Tensor

from onnxprune.errors import UsageError
from onnxprune.steps.train.method import Effect, Moment, Scene, TrainingMethod, training_method
from onnxprune.steps.train.units import gated
from onnxprune.support.options import option

_LOW, _HIGH = -20.0, 0.0
_TINY = 1e-12


class Truncated:
    """Log-normal noise cut off to [exp(-20), 1]; `mu` and `log_sigma` of shape [units], computed in float64."""

    def __init__(self, mu: Tensor, log_sigma: Tensor) -> None:
        self.mu, self.sigma = mu.double(), log_sigma.double().exp()
        self.u, self.v = (_LOW - self.mu) / self.sigma, (_HIGH - self.mu) / self.sigma
        self.mass = (torch.special.ndtr(self.v) - torch.special.ndtr(self.u)).clamp(min=_TINY)

    def kl(self) -> Tensor:
        """Divergence of z from the uniform prior, per unit."""
        density: Tensor = (self.u * _phi(self.u) - self.v * _phi(self.v)) / (2 * self.mass)
        entropy: Tensor = 0.5 * log(2 * pi * e) + self.sigma.log() + self.mass.log() + density
        return log(_HIGH - _LOW) - entropy

    def drawn(self) -> Tensor:
        """A theta for each unit, by the inverse of the distribution function."""
        uniform = torch.rand_like(self.mu)
        below = torch.special.ndtr(self.u) + uniform * self.mass
        z = self.mu + self.sigma * torch.special.ndtri(below.clamp(_TINY, 1 - _TINY))
        theta: Tensor = z.clamp(_LOW, _HIGH).exp()
        return theta

    def moment(self, power: int) -> Tensor:
        """E[theta^power]."""
        shift = power * self.sigma
        part = torch.special.ndtr(self.v - shift) - torch.special.ndtr(self.u - shift)
        found: Tensor = torch.exp(power * self.mu + 0.5 * shift.square()) * part / self.mass
        return found

    def snr(self) -> Tensor:
        """Mean over standard deviation."""
        mean = self.moment(1)
        ratio: Tensor = mean / (self.moment(2) - mean.square()).clamp(min=_TINY).sqrt()
        return ratio


def _phi(x: Tensor) -> Tensor:
    density: Tensor = torch.exp(-0.5 * x.square()) / (2 * pi) ** 0.5
    return density


@training_method(
    "variational-units",
    source="Neklyudov et al. 2017, Structured Bayesian pruning via log-normal multiplicative noise, section 3",
)
@dataclass(frozen=True)
class VariationalUnits(TrainingMethod):
    """Learn the noise that each unit can take; units with a signal below their noise end at zero."""

    strength: float = option(1.0, "Factor on the divergence; 1 is the bound itself.", low=0)
    threshold: float = option(1.0, "Units with a ratio of mean to deviation below this go.", low=0)
    warmup: float = option(0.5, "Share of the training in which the divergence grows to it.", low=0, high=1)
    speed: float = option(10.0, "Factor on the learning rate of the noise.", low=0)

    def start(self, scene: Scene) -> Effect:
        """Raises UsageError where no weight reads units."""
        if not scene.gateable:
            raise UsageError("variational-units: no units of this model are read by weights alone")
        return _UnitNoise(self, scene)


class _UnitNoise(Effect):
    def __init__(self, method: VariationalUnits, scene: Scene) -> None:
        super().__init__()
        self.method, self.rate, self.samples, self.groups = method, method.speed, scene.samples, scene.gateable
        device = next(iter(scene.weights.values())).device
        for group in self.groups:
            self.parameters[f"{group.id}:mu"] = torch.nn.Parameter(torch.zeros(group.units, device=device))
            self.parameters[f"{group.id}:sigma"] = torch.nn.Parameter(torch.full((group.units,), -5.0, device=device))

    def _noise(self, name: str) -> Truncated:
        return Truncated(self.parameters[f"{name}:mu"], self.parameters[f"{name}:sigma"])

    def weights(self, weights: Mapping[str, Tensor], moment: Moment, *, training: bool) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Readers times the noise, one draw for a batch; evaluations see its mean, zero for units that are noise."""
        gates = {}
        for group in self.groups:
            noise = self._noise(group.id)
            gate = noise.drawn() if training else noise.moment(1) * (noise.snr() >= self.method.threshold)
            gates[group.id] = gate.to(next(iter(weights.values())).dtype)
        return gated(weights, self.groups, gates)

    def term(self, weights: Mapping[str, Tensor], moment: Moment) -> Tensor:  # noqa: ARG002
        """The divergence over the number of samples."""
        grown = min(moment.share / self.method.warmup, 1.0) if self.method.warmup else 1.0
        total = torch.stack([self._noise(group.id).kl().sum() for group in self.groups]).sum()
        return (self.method.strength * grown / self.samples * total).float()

    def scores(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:  # noqa: ARG002
        """The ratio of signal to noise."""
        return {group.id: self._noise(group.id).snr() for group in self.groups}

    def notes(self, weights: Mapping[str, Tensor]) -> Iterator[str]:
        """How many units are left."""
        left = sum(int((each >= self.method.threshold).sum()) for each in self.scores(weights).values())
        yield f"{left} of {sum(group.units for group in self.groups)} units are left"
