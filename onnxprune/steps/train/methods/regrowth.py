"""Training with as many zeros from the beginning: the same ones, or others again and again."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxprune.analysis.sparse_patterns import parse_pattern
from onnxprune.steps.train.masking import BEGINNINGS, SHARES, Masked, due
from onnxprune.steps.train.method import Effect, Moment, Scene, TrainingMethod, training_method
from onnxprune.support.options import option


@dataclass(frozen=True)
class _Sparse(TrainingMethod):
    sparsity: float = option(0.8, "Share of the weights that is zero.", low=0, high=1, below=True)
    shares: str = option("erk", "How layers share it: erk or uniform.", choices=lambda: SHARES)
    first: str = option("magnitude", "Which weights are there first: magnitude or random.", choices=lambda: BEGINNINGS)


@training_method("static", source="the control of Mocanu et al. 2018 and Evci et al. 2020")
@dataclass(frozen=True)
class Static(_Sparse):
    """The same weights are zero from the first update to the last."""

    pattern: str = option("none", "Where zeros may be, see: sparsify --pattern; 2:4 makes its own sparsity.")

    def start(self, scene: Scene) -> Effect:
        """Raises UsageError for a pattern that is none, and where nothing can be made sparse."""
        return _Fixed(self, scene, self.pattern)


@dataclass(frozen=True)
class _Moving(_Sparse):
    fraction: float = option(0.3, "Share of the weights of a layer that are exchanged.", low=0, high=1)
    interval: int = option(20, "Updates between two exchanges.", low=1)
    end: float = option(0.75, "Share of the training after which the same weights stay.", low=0, high=1)


@training_method(
    "set",
    source="Mocanu et al. 2018, Scalable training with adaptive sparse connectivity, algorithm 1",
)
@dataclass(frozen=True)
class Set(_Moving):
    """Sparse evolutionary training: the smallest weights go, as many come anywhere else.

    New ones begin at zero, as in the comparison of Evci et al. 2020; those nearest to zero go, of either sign.
    """

    def start(self, scene: Scene) -> Effect:
        """Raises UsageError where nothing can be made sparse."""
        return _Evolving(self, scene)


@training_method("rigl", source="Evci et al. 2020, Rigging the Lottery, section 3 and algorithm 1")
@dataclass(frozen=True)
class RigL(_Moving):
    """The smallest weights go, as many come where the gradient is largest; fewer from time to time.

    Of `fraction` f the share f / 2 * (1 + cos(pi * t)) is exchanged, t the share of the time up to `end`. New weights
    begin at zero. One that was just removed comes back, as it was, where its gradient is among the largest.
    """

    def start(self, scene: Scene) -> Effect:
        """Raises UsageError where nothing can be made sparse."""
        return _Rigged(self, scene)


class _Fixed(Masked):
    """Weights behind the masks are zero after every update, and get no gradients."""

    def __init__(self, method: _Sparse, scene: Scene, pattern: str = "none") -> None:
        super().__init__(scene, parse_pattern(pattern))
        shares = self.shares(method.sparsity, method.shares)
        generator = torch.Generator().manual_seed(scene.seed)
        for name, share in shares.items():
            weight = scene.weights[name].detach()
            drawn = torch.rand(weight.shape, generator=generator).to(weight)
            self.set(name, drawn if method.first == "random" else weight.abs(), share, self.pattern)
        self.set_zeros(scene.weights)

    def before_step(self, weights: Mapping[str, Tensor], moment: Moment) -> None:  # noqa: ARG002
        """No gradient, so no momentum, behind the masks."""
        for name, mask in self.masks.items():
            gradient = weights[name].grad
            if gradient is not None:
                gradient.mul_(mask)

    def after_step(self, weights: Mapping[str, Tensor], moment: Moment) -> None:  # noqa: ARG002
        """Zeros where the masks are."""
        self.set_zeros(weights)

    def finish(self, weights: Mapping[str, Tensor], moment: Moment) -> None:  # noqa: ARG002
        """The same."""
        self.set_zeros(weights)


class _Exchanging(_Fixed):
    def __init__(self, method: _Moving, scene: Scene) -> None:
        super().__init__(method, scene)
        self.method = method

    def after_step(self, weights: Mapping[str, Tensor], moment: Moment) -> None:
        """Zeros where the masks are; every so many updates some are exchanged."""
        if due(moment, self.method.interval) and moment.share < self.method.end:
            for name in self.masks:
                self._exchange(name, weights[name].detach(), moment)
        self.set_zeros(weights)

    def _exchange(self, name: str, weight: Tensor, moment: Moment) -> None:
        """Of the weights that are there the smallest go; of all that are not then, those of highest score come."""
        mask, allowed = self.masks[name], self.allowed[name] > 0
        active = mask > 0
        count = min(int(self.fraction(moment) * int(active.sum())), int((allowed & ~active).sum()))
        if not count:
            return
        sizes = torch.where(active, weight.abs(), torch.inf).flatten()
        gone = torch.argsort(sizes, stable=True)[:count]
        flat = mask.view(-1)
        flat[gone] = 0.0
        scores = torch.where(allowed & self.may_come(active, mask), self.rank(name, weight), -torch.inf).flatten()
        come = torch.argsort(scores, descending=True, stable=True)[:count]
        flat[come] = 1.0
        with torch.no_grad():
            weight.mul_(mask * active)  # what comes begins at zero, unless it was there before

    def may_come(self, before: Tensor, mask: Tensor) -> Tensor:
        """Which weights may come: bool. By default those that were not there before."""
        del mask
        return ~before

    @abstractmethod
    def fraction(self, moment: Moment) -> float:
        """The share of the weights of a layer that is exchanged."""

    @abstractmethod
    def rank(self, name: str, weight: Tensor) -> Tensor:
        """Which weights come: those of highest score."""


class _Evolving(_Exchanging):
    def fraction(self, moment: Moment) -> float:  # noqa: ARG002
        """The same each time."""
        return self.method.fraction

    def rank(self, name: str, weight: Tensor) -> Tensor:  # noqa: ARG002
        """Drawn anew each time; the loop seeds every update."""
        return torch.rand(weight.shape).to(weight)


class _Rigged(_Exchanging):
    def __init__(self, method: _Moving, scene: Scene) -> None:
        super().__init__(method, scene)
        self.slopes: dict[str, Tensor] = {}

    def before_step(self, weights: Mapping[str, Tensor], moment: Moment) -> None:
        """Sizes of gradients of all weights, those behind the masks too, where an exchange comes next."""
        if due(moment, self.method.interval) and moment.share < self.method.end:
            self.slopes = {
                name: gradient.detach().abs() for name in self.masks if (gradient := weights[name].grad) is not None
            }
        super().before_step(weights, moment)

    def fraction(self, moment: Moment) -> float:
        """Equation of section 3 (3)."""
        return self.method.fraction / 2 * (1 + math.cos(math.pi * moment.share / max(self.method.end, 1e-9)))

    def may_come(self, before: Tensor, mask: Tensor) -> Tensor:
        """All that are not there now, also those that were just removed."""
        del before
        return mask == 0

    def rank(self, name: str, weight: Tensor) -> Tensor:
        """Sizes of gradients."""
        return self.slopes.get(name, torch.zeros_like(weight))
