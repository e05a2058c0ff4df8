"""Variational dropout with a rate per weight: noise that a weight can take says that it is not needed.

A weight is drawn from N(w, sigma^2), and the training maximizes the evidence lower bound under a log-uniform prior. It
ends with an alpha = sigma^2 / w^2 that is large for most weights: they are pure noise, and zero in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxprune.steps.train.method import Effect, Moment, Scene, TrainingMethod, training_method
from onnxprune.support.options import option

# Of equation 14 in Molchanov et al.
_K1, _K2, _K3 = 0.63576, 1.87320, 1.48695
_TINY = 1e-16


def negative_kl(log_alpha: Tensor) -> Tensor:
    """-KL(N(w, alpha w^2) | log-uniform) of each weight, up to a constant; 0 for weights that are pure noise."""
    return _K1 * torch.sigmoid(_K2 + _K3 * log_alpha) - 0.5 * torch.nn.functional.softplus(-log_alpha) - _K1


@training_method(
    "variational-dropout",
    source="Molchanov, Ashukha and Vetrov 2017, Variational dropout sparsifies deep neural networks, equation 14; "
    "Kingma, Salimans and Welling 2015",
)
@dataclass(frozen=True)
class VariationalDropout(TrainingMethod):
    """Learn the noise that each weight can take; weights that are all noise end at zero."""

    strength: float = option(1.0, "Factor on the divergence; 1 is the bound itself.", low=0)
    threshold: float = option(3.0, "Weights with a log alpha above this are zero.")
    warmup: float = option(0.5, "Share of the training in which the divergence grows to it.", low=0, high=1)
    speed: float = option(10.0, "Factor on the learning rate of the noise.", low=0)
    start_at: float = option(-10.0, "Logarithm of the variance of the noise at the start.")

    def start(self, scene: Scene) -> Effect:
        """On the matrices and kernels that are trained."""
        return _Noise(self, scene)


class _Noise(Effect):
    """Parameters are the logarithms of variances."""

    def __init__(self, method: VariationalDropout, scene: Scene) -> None:
        super().__init__()
        self.method, self.rate, self.samples = method, method.speed, scene.samples
        self.sparse = tuple(scene.matrices)
        for name, weight in scene.matrices.items():
            self.parameters[name] = torch.nn.Parameter(torch.full_like(weight, method.start_at))

    def _log_alpha(self, name: str, weight: Tensor) -> Tensor:
        return self.parameters[name] - torch.log(weight.square() + _TINY)

    def weights(self, weights: Mapping[str, Tensor], moment: Moment, *, training: bool) -> Mapping[str, Tensor]:  # noqa: ARG002
        """With noise, one draw for a batch; evaluations see the weights themselves, without those that are noise."""
        if training:
            return {
                name: weights[name] + torch.exp(0.5 * self.parameters[name]) * torch.randn_like(weights[name])
                for name in self.sparse
            }
        kept = {name: self._log_alpha(name, weights[name]) <= self.method.threshold for name in self.sparse}
        return {name: weights[name] * mask for name, mask in kept.items()}

    def term(self, weights: Mapping[str, Tensor], moment: Moment) -> Tensor:
        """The divergence over the number of samples, for the loss is a mean over samples."""
        grown = min(moment.share / self.method.warmup, 1.0) if self.method.warmup else 1.0
        each = [negative_kl(self._log_alpha(name, weights[name])).sum() for name in self.sparse]
        return -self.method.strength * grown / self.samples * torch.stack(each).sum()

    def notes(self, weights: Mapping[str, Tensor]) -> Iterator[str]:
        """How many weights are left."""
        left = sum(int((weights[name] != 0).sum()) for name in self.sparse)
        total = sum(weights[name].numel() for name in self.sparse)
        yield f"{left} of {total} weights are left, {total / max(left, 1):.1f} times fewer"
