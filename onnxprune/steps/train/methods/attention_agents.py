"""Attention agents: a head beside every layer learns which of its filters count, and is folded away at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxprune.errors import UsageError
from onnxprune.steps.train.method import Effect, Moment, Scene, TrainingMethod, training_method
from onnxprune.steps.train.spending import Spending
from onnxprune.steps.train.units import UnitGroup, gated
from onnxprune.support.options import option

# A bottleneck of fewer may be shut by its rectifier for good.
_LEAST = 8


@training_method(
    "attention-agents",
    source="Hu, Shen and Sun 2018, Squeeze-and-excitation networks, section 3; Yamamoto and Maeno 2018, PCAS: pruning "
    "channels with attention statistics. The squeeze here is over the weights of a unit, not over activations: so what "
    "the head says is the same for every input, and folds exactly into the weights",
)
@dataclass(frozen=True)
class AttentionAgents(TrainingMethod):
    """Squeeze every unit's weights, excite by a bottleneck, and multiply; units that the agents shut end at zero."""

    target: float = option(0.5, "Share of the MACs that is left.", low=0, high=1)
    strength: float = option(10.0, "Factor on the logarithm of how far the cost is above the target.", low=0)
    reduction: int = option(4, "Units for each one of the bottleneck.", low=1)
    shut: float = option(0.5, "Units with an attention below this, of at most 1, are zero at the end.", low=0, high=1)
    speed: float = option(10.0, "Factor on the learning rate of the agents.", low=0)

    def start(self, scene: Scene) -> Effect:
        """Raises UsageError where no weight reads units."""
        if not scene.gateable:
            raise UsageError("attention-agents: no units of this model are read by weights alone")
        return _Agents(self, scene)


class _Agents(Effect):
    """Parameters are the two layers of each head."""

    def __init__(self, method: AttentionAgents, scene: Scene) -> None:
        super().__init__()
        self.method, self.rate, self.groups = method, method.speed, scene.gateable
        self.spent = Spending(scene.analysis)
        generator = torch.Generator().manual_seed(scene.seed)
        device = next(iter(scene.weights.values())).device
        for group in self.groups:
            inner = max(group.units // method.reduction, _LEAST)
            made = {
                "squeeze": torch.randn(inner, group.units, generator=generator) / group.units**0.5,
                "excite": torch.randn(group.units, inner, generator=generator) / inner**0.5 * 0.1,
                "open": torch.full((group.units,), 2.0),
            }
            for part, tensor in made.items():
                self.parameters[f"{group.id}:{part}"] = torch.nn.Parameter(tensor.to(device))

    def attention(self, group: UnitGroup, weights: Mapping[str, Tensor]) -> Tensor:
        """Of each unit, in (0, 1): sigmoid(excite relu(squeeze x) + open), x the normalized sizes of the units."""
        sizes = (group.squares(weights) / group.entries(weights)).detach().clamp(min=1e-20).log()
        normal = (sizes - sizes.mean()) / (sizes.std(correction=0) + 1e-6)
        squeeze, excite, opened = (self.parameters[f"{group.id}:{part}"] for part in ("squeeze", "excite", "open"))
        return torch.sigmoid(excite @ torch.relu(squeeze @ normal) + opened)

    def _gates(self, weights: Mapping[str, Tensor], *, training: bool) -> dict[str, Tensor]:
        found = {group.id: self.attention(group, weights) for group in self.groups}
        if training:  # what is below the limit is shut in the forward pass too; its gradient is that of the attention
            return {name: each - (each * (each < self.method.shut)).detach() for name, each in found.items()}
        return {name: each * (each >= self.method.shut) for name, each in found.items()}

    def weights(self, weights: Mapping[str, Tensor], moment: Moment, *, training: bool) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Readers times the attention of their units."""
        return gated(weights, self.groups, self._gates(weights, training=training))

    def _share(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Of the MACs, counted by the units that are open; the gradient is that of the attention."""
        counts = {}
        for group in self.groups:
            each = self.attention(group, weights)
            counts[group.id] = ((each >= self.method.shut).to(each.dtype) + each - each.detach()).sum()
        return self.spent(counts)

    def term(self, weights: Mapping[str, Tensor], moment: Moment) -> Tensor | None:  # noqa: ARG002
        """How far the cost is above the target, on a logarithmic scale; nothing where it is not."""
        return self.method.strength * torch.relu(torch.log(self._share(weights) / max(self.method.target, 1e-6)))

    def scores(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The attention."""
        return {group.id: self.attention(group, weights) for group in self.groups}

    def notes(self, weights: Mapping[str, Tensor]) -> Iterator[str]:  # noqa: ARG002
        """Nothing of the agents is in the file."""
        yield "the agents are folded into the weights"
