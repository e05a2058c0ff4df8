"""Sparsity that grows while a training goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxprune.analysis.sparse_patterns import NofM, Pattern, parse_pattern
from onnxprune.errors import UsageError
from onnxprune.steps.train.masking import SHARES, Masked, due, grown
from onnxprune.steps.train.method import Effect, Moment, Scene, TrainingMethod, training_method
from onnxprune.steps.train.units import UnitGroup, gated
from onnxprune.support.options import option

LEVELS = ("weight", "unit")


@training_method("gradual", source="Zhu & Gupta 2017, To prune, or not to prune, equation 1")
@dataclass(frozen=True)
class Gradual(TrainingMethod):
    """The smallest weights, or units, are zero, more and more of them: fast at first, then slower.

    The sparsity is s * (1 - (1 - t)^3), t the share of the time between `begin` and `end`. A mask hides weights from
    the network; those behind it still get the gradients of what they would change, and come back where they grow. From
    `end` on masks stay as they are. With `revive=false` they get none, as in the paper, and come back where others
    become smaller than they are.
    """

    sparsity: float = option(0.8, "Share of the weights that is zero in the end.", low=0, high=1, below=True)
    pattern: str = option("none", "Where zeros may be, see: sparsify --pattern; 2:4 makes its own sparsity.")
    level: str = option("weight", "weight or unit.", choices=lambda: LEVELS)
    shares: str = option("erk", "How layers share it: erk, or uniform as in the paper.", choices=lambda: SHARES)
    begin: float = option(0.0, "Share of the training after which it begins.", low=0, high=1)
    end: float = option(0.75, "Share of the training after which masks stay as they are.", low=0, high=1)
    interval: int = option(10, "Updates between two changes of masks.", low=1)
    revive: bool = option(True, "Weights behind a mask get gradients.")

    def start(self, scene: Scene) -> Effect:
        """Raises UsageError for a pattern that is none, and where nothing can be made sparse."""
        return _Units(self, scene) if self.level == "unit" else _Weights(self, scene, parse_pattern(self.pattern))

    def way(self, share: float) -> float:
        """How much of the sparsity is due after a share of the training, in [0, 1]."""
        return grown(share, self.begin, self.end)


class _Due:
    """How much of the sparsity is due after an update: more and more until the end, all of it once, then no more news.

    What stands behind a mask is not in use, so a mask that were chosen after the last update would bring back weights
    that were never trained together with the others.

    Attributes:
        settled: 1 once all of it was due, else 0.
    """

    def __init__(self, method: Gradual) -> None:
        self.method, self.settled = method, torch.zeros(())

    def now(self, moment: Moment) -> float | None:
        """The share of the sparsity that masks are to be chosen for, None where they stay."""
        if self.settled:
            return None
        if moment.share >= self.method.end:
            return self.at_last()
        return self.method.way(moment.share) if due(moment, self.method.interval) else None

    def at_last(self) -> float | None:
        """The same after the last update."""
        if self.settled:
            return None
        self.settled.fill_(1.0)
        return 1.0


class _Weights(Masked):
    def __init__(self, method: Gradual, scene: Scene, pattern: Pattern) -> None:
        super().__init__(scene, pattern)
        self.method, self.due = method, _Due(method)
        self.buffers["settled"] = self.due.settled

    def weights(self, weights: Mapping[str, Tensor], moment: Moment, *, training: bool) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Those that the masks leave; behind them the gradient passes as if they were there."""
        found = {}
        for name, mask in self.masks.items():
            masked = weights[name] * mask
            through = training and self.method.revive and not self.due.settled
            found[name] = weights[name] + (masked - weights[name]).detach() if through else masked
        return found

    def after_step(self, weights: Mapping[str, Tensor], moment: Moment) -> None:
        """New masks, every so many updates until the end."""
        self._choose(weights, self.due.now(moment))

    def finish(self, weights: Mapping[str, Tensor], moment: Moment) -> None:  # noqa: ARG002
        """All of the sparsity, in the weights themselves."""
        self._choose(weights, self.due.at_last())
        self.set_zeros(weights)

    def _choose(self, weights: Mapping[str, Tensor], way: float | None) -> None:
        if way is None:
            return
        pattern, share = self.pattern, self.method.sparsity * way
        if isinstance(pattern, NofM):  # more and more of every M
            left = round(pattern.m - (pattern.m - pattern.n) * way)
            pattern = NofM(left, pattern.m)
        self.keep_largest(weights, self.shares(share, self.method.shares), pattern)


class _Units(Effect):
    """Gates of zero and one on what reads units; see `units`."""

    def __init__(self, method: Gradual, scene: Scene) -> None:
        super().__init__()
        self.method, self.due = method, _Due(method)
        self.groups = [group for group in scene.groups if group.readers]
        if not self.groups:
            raise UsageError("gradual: no units of this model are read by weights alone; try level=weight")
        like = scene.weights[self.groups[0].readers[0].tensor]
        self.gates = {group.id: torch.ones(group.units, dtype=like.dtype, device=like.device) for group in self.groups}
        self.buffers["settled"] = self.due.settled
        self.buffers.update({f"gates of {name}": gate for name, gate in self.gates.items()})

    def weights(self, weights: Mapping[str, Tensor], moment: Moment, *, training: bool) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Readers without the units whose gate is zero; behind it the gradient passes as if they were there."""
        found = gated(weights, self.groups, self.gates)
        if training and self.method.revive and not self.due.settled:
            return {name: weights[name] + (each - weights[name]).detach() for name, each in found.items()}
        return found

    def after_step(self, weights: Mapping[str, Tensor], moment: Moment) -> None:
        """New gates, every so many updates until the end."""
        self._choose(weights, self.due.now(moment))

    def finish(self, weights: Mapping[str, Tensor], moment: Moment) -> None:  # noqa: ARG002
        """All of the sparsity, in the weights themselves: what reads a unit that is off is zero."""
        self._choose(weights, self.due.at_last())
        with torch.no_grad():
            for name, each in gated(weights, self.groups, self.gates).items():
                weights[name].copy_(each)

    def _choose(self, weights: Mapping[str, Tensor], way: float | None) -> None:
        if way is None:
            return
        for group in self.groups:
            keep_largest_units(self.gates[group.id], group, weights, self.method.sparsity * way)


def keep_largest_units(gate: Tensor, group: UnitGroup, weights: Mapping[str, Tensor], share: float) -> None:
    """Set a gate to one for the units of largest weights, to zero for the rest; one unit stays at least."""
    sizes = sum(place.squares(weights[place.tensor].detach(), group.units) for place in group.places)
    off = min(round(share * group.units), group.units - 1)
    gate.fill_(1.0)
    gate[torch.argsort(sizes, stable=True)[:off]] = 0.0  # type: ignore[arg-type]
