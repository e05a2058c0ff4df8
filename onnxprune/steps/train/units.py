"""Where the units of groups are in the weights of a training, and gates on them.

A gate multiplies what reads its unit: the slices of weights that a sum over the unit takes it with. A gate of zero is
then the unit switched off, for channels, neurons, heads and hidden states alike, and a gate folds exactly into weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxprune.analysis.groups import Analysis, Group, Occurrence
from onnxprune.analysis.producers import axes_of_units
from onnxprune.dims import atoms, units_of
from onnxprune.steps.train.normalization import Inserted

# Whether a method works on single weights or on whole units.
LEVELS = WEIGHT, UNIT = "weight", "unit"


@dataclass(frozen=True)
class UnitPlace:
    """Axis `axis` of weight `tensor` holds units; `index` names the unit of each entry, -1 for none: int64 [size]."""

    tensor: str
    axis: int
    index: Tensor

    def spread(self, values: Tensor, rank: int, others: float) -> Tensor:
        """One value per unit, as a tensor that goes with the weight; entries that belong to no unit get `others`."""
        along = torch.cat([values, values.new_full((1,), others)])[self.index]
        return along.reshape([-1 if axis == self.axis else 1 for axis in range(rank)])

    def squares(self, weight: Tensor, units: int) -> Tensor:
        """The sum of squares of what belongs to each unit: shape [units]."""
        rest = [axis for axis in range(weight.ndim) if axis != self.axis]
        along = weight.square().sum(rest) if rest else weight.square()
        return along.new_zeros(units + 1).index_add(0, self.index % (units + 1), along)[:units]

    def entries(self, weight: Tensor, units: int) -> Tensor:
        """How many entries of the weight belong to each unit: shape [units]."""
        return self.squares(torch.ones_like(weight), units)


@dataclass(frozen=True)
class UnitGroup:
    """A group of units as a training has it.

    Attributes:
        id: its name, as in `Group.id`.
        units: how many.
        places: the trained weights that belong to the units: what makes them, what reads them, biases, normalizations.
        readers: the weights that read them; empty where something else reads them too: then no gate can switch a unit
            off exactly.
    """

    id: str
    units: int
    places: tuple[UnitPlace, ...]
    readers: tuple[UnitPlace, ...]

    def squares(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The sum of squares of all that belongs to each unit: shape [units]."""
        return torch.stack([place.squares(weights[place.tensor], self.units) for place in self.places]).sum(0)

    def entries(self, weights: Mapping[str, Tensor]) -> Tensor:
        """How many weights belong to each unit: shape [units]."""
        return torch.stack([place.entries(weights[place.tensor], self.units) for place in self.places]).sum(0)

    def scale(self, weights: Mapping[str, Tensor], factors: Tensor) -> None:
        """Multiply, in place, all that belongs to each unit by its factor: shape [units]."""
        for place in self.places:
            weight = weights[place.tensor]
            weight.mul_(place.spread(factors, weight.ndim, 1.0))


def unit_groups(
    analysis: Analysis, weights: Mapping[str, Tensor], roles: Mapping[str, str], inserted: Sequence[Inserted]
) -> list[UnitGroup]:
    """The groups of an analysed model as a training has them; those that a norm takes statistics over are left out.

    Args:
        analysis: of the model that is trained, before normalizations were put in.
        weights: all float weights of the training.
        roles: of those that are trained.
        inserted: normalizations that were put in: their scales and shifts represent the bias that they take up.
    """
    device = next(iter(weights.values())).device
    norms = {norm.bias: norm for norm in inserted}
    making, reading = axes_of_units(analysis)
    found = []
    for group in (group for group in analysis.groups if not group.statistics):
        own: list[UnitPlace] = []
        readers: list[UnitPlace] = []
        for place in group.occurrences:
            index = torch.from_numpy(units_of(place.dim, group.atom)).to(device)
            norm = norms.get(place.tensor)
            names = [place.tensor] if norm is None else [norm.scale, norm.shift]
            own += [UnitPlace(name, place.axis, index) for name in names if name in roles]
            if (place.tensor, place.axis) in reading and place.tensor in weights:
                readers.append(UnitPlace(place.tensor, place.axis, index))
        if own:
            closed = _is_read_by_weights(analysis, group, making, reading)
            found.append(UnitGroup(group.id, group.units, tuple(own), tuple(readers) if closed else ()))
    return found


Axes = set[tuple[str, int]]


def _is_read_by_weights(analysis: Analysis, group: Group, making: Axes, reading: Axes) -> bool:
    """Is every sum over the units a product with a weight that does nothing else with them?"""
    if any(_both(place, making, reading) for place in group.occurrences):
        return False
    readers = {place.tensor for place in group.occurrences if (place.tensor, place.axis) in reading}
    for contraction in analysis.findings.contractions:
        if group.atom in set(atoms(contraction.summed)):
            given = {value.name for value in contraction.node.inputs if value is not None}
            if not readers & (given | _sources(contraction.node, analysis)):
                return False
    return bool(readers)


def _both(place: Occurrence, making: Axes, reading: Axes) -> bool:
    return (place.tensor, place.axis) in making and (place.tensor, place.axis) in reading


def _sources(node: object, analysis: Analysis) -> set[str | None]:
    """The weights that the inputs of a node are computed from alone."""
    waiting = [value for value in node.inputs if value is not None]  # type: ignore[attr-defined]
    found: set[str | None] = set()
    while waiting:
        value = waiting.pop()
        found.add(value.name)
        producer = value.producer()
        if value.name not in analysis.activations and producer is not None:
            waiting += [each for each in producer.inputs if each is not None]
    return found


def gated(weights: Mapping[str, Tensor], groups: Sequence[UnitGroup], gates: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that read gated units, each slice times the gate of its unit; only those that differ.

    Args:
        weights: by name.
        groups: those of `unit_groups`.
        gates: per group id, shape [units].
    """
    found: dict[str, Tensor] = {}
    for group in groups:
        if group.id in gates:
            for place in group.readers:
                weight = found.get(place.tensor, weights[place.tensor])
                found[place.tensor] = weight * place.spread(gates[group.id], weight.ndim, 1.0)
    return found
