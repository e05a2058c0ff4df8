"""The results of an analysis: groups of units that go together, and axes that keep their size."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.analysis.shape_inference import Shapes
from onnxprune.dims import Atom, Dim, atoms, resolve
from onnxprune.model import graph as graphs
from onnxprune.ops.base import Dims
from onnxprune.ops.findings import Findings, Reason, SizeRef
from onnxprune.support.notebook import html_table

# Groups that a print of an analysis lists.
_SHOWN = 6

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True)
class Occurrence:
    """A weight axis that mentions a group: axis `axis` of initializer `tensor` is `dim`."""

    tensor: str
    axis: int
    dim: Dim


@dataclass(repr=False)
class Group:
    """`units` independent units that are removed one by one, everywhere at once.

    Attributes:
        id: its name, that of the layer that makes it, like `layer1.0.conv1`; see `analysis.names`.
        atom: the dimension that the units enumerate.
        occurrences: every weight axis that holds it, in topological order.
        kind: what the units are: channels, neurons, heads, kv-heads, head-dim, hidden, recurrent.
        statistics: a normalization takes statistics over the units, so removing some changes the others' values.
        first_axis: the first weight axis that holds it, like `conv1.weight[0]`; plans of older versions call it so.
    """

    id: str
    atom: Atom
    occurrences: list[Occurrence]
    kind: str = ""
    statistics: bool = False
    first_axis: str = ""

    @property
    def units(self) -> int:
        """How many units there are."""
        return self.atom.size

    def __repr__(self) -> str:
        return f"Group({self.id!r}, {self.kind}, {self.units} units in {len(self.occurrences)} weight axes)"


@dataclass(frozen=True)
class Frozen:
    """A weight axis that keeps its size, and why."""

    tensor: str
    axis: int
    size: int
    reason: Reason


@dataclass(repr=False)
class Analysis:
    """Everything that is known about the dimensions of a model.

    Attributes:
        model: the model analysed (canonical form).
        shapes: concrete shapes and known constants.
        dims: per value the dimension of each axis.
        groups: what can be pruned, in topological order.
        frozen: the weight axes that cannot, with reasons.
        findings: constants that name sizes, contractions, tags.
        unruled: operators without a rule and their counts.
        activations: names of the values that depend on a graph input.
        batch: what `cost.batch_size` has found; None before it is asked.
        macs: what `cost.macs_of` has found; None before it is asked.
        learned: scores that a training has learned of units, for the criterion `learned`: float64, shape [units].
    """

    model: ir.Model
    shapes: Shapes
    dims: dict[str, Dims]
    groups: list[Group] = field(default_factory=list)
    frozen: list[Frozen] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    unruled: Counter[str] = field(default_factory=Counter)
    activations: set[str] = field(default_factory=set)
    batch: int | None = None
    macs: int | None = None
    learned: dict[Atom, npt.NDArray[np.float64]] = field(default_factory=dict)

    @cached_property
    def graph(self) -> nx.DiGraph:
        """The networkx view of the model."""
        return graphs.view(self.model)

    @cached_property
    def operators(self) -> list[tuple[str, ir.Node]]:
        """Name and node of every operator in topological order, see `model.graph.operators`."""
        return graphs.operators(self.model)

    def _forget_order(self) -> None:
        """The model has changed: what was read off it is read anew when it is asked for."""
        self.__dict__.pop("graph", None)
        self.__dict__.pop("operators", None)

    def note(self, value: ir.Value, dims: Dims) -> None:
        """Take in a weight that was put into the model after the walk; `dims` are those of its axes."""
        name, tensor = value.name or "", value.const_value
        assert tensor is not None
        self.dims[name] = dims
        self.shapes.shapes[name] = tuple(dim.size for dim in dims)
        self.shapes.dtypes[name] = tensor.dtype
        by_atom = {group.atom: group for group in self.groups}
        for axis, handle in enumerate(dims):
            dim = resolve(handle)
            for atom in dict.fromkeys(atoms(dim)):
                if atom in by_atom:
                    by_atom[atom].occurrences.append(Occurrence(name, axis, dim))
        self._forget_order()

    def remove_dead(self) -> None:
        """Remove what nothing reads any more from the model, and forget it."""
        graphs.remove_dead(self.model)
        weights = self.model.graph.initializers
        for group in self.groups:
            group.occurrences = [place for place in group.occurrences if place.tensor in weights]
        self._forget_order()

    def note_like(self, name: str, like: str) -> None:
        """Take in a value that was put into the model after the walk, and has the shape and dimensions of another."""
        self.dims[name] = self.dims[like]
        self.shapes.shapes[name] = self.shapes.shapes[like]
        self.shapes.dtypes[name] = self.shapes.dtypes[like]
        self.shapes.dynamic.update((name, axis) for value, axis in set(self.shapes.dynamic) if value == like)
        if like in self.activations:
            self.activations.add(name)
        self._forget_order()

    def __repr__(self) -> str:
        units = sum(group.units for group in self.groups)
        lines = [
            f"Analysis: {len(self.groups)} groups of {units:,} units, {len(self.frozen)} weight axes keep their size"
        ]
        lines += [f"  {group.id}: {group.units} {group.kind}" for group in self.groups[:_SHOWN]]
        lines += [f"  ... and {len(self.groups) - _SHOWN} more"] if len(self.groups) > _SHOWN else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = ((group.id, group.kind, group.units) for group in self.groups)
        return html_table(("group", "kind", "units"), rows)

    def names(self) -> dict[Atom, str]:
        """The id of each group by its atom, for printing dimensions."""
        return {group.atom: group.id for group in self.groups}

    def varies(self, ref: SizeRef) -> bool:
        """Is what a constant names an axis whose size differs from run to run?"""
        name = ref.node.outputs[0].name or ""
        axes = [axis for axis, handle in enumerate(self.dims.get(name, [])) if handle is ref.dim]
        return any((name, axis) in self.shapes.dynamic for axis in axes)
