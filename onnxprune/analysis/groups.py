"""What an analysis finds: groups of units that go together, and axes that keep their size."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxprune.analysis.shape_inference import Shapes
from onnxprune.dims import Atom, Dim
from onnxprune.model.graph import view
from onnxprune.ops.base import Dims, Findings, Reason, SizeRef

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True)
class Occurrence:
    """A weight axis that mentions a group: axis `axis` of initializer `tensor` is `dim`."""

    tensor: str
    axis: int
    dim: Dim


@dataclass
class Group:
    """`units` independent units that are removed one by one, everywhere at once.

    Attributes:
        id: stable name, the first weight axis that holds the group, like `conv1.weight[0]`.
        atom: the dimension that the units enumerate.
        occurrences: every weight axis that holds it, in topological order.
        kind: what the units are: channels, neurons, heads, kv-heads, head-dim, hidden, recurrent.
        statistics: a normalization takes statistics over the units, so removing some changes the others' values.
    """

    id: str
    atom: Atom
    occurrences: list[Occurrence]
    kind: str = ""
    statistics: bool = False

    @property
    def units(self) -> int:
        """How many units there are."""
        return self.atom.size


@dataclass(frozen=True)
class Frozen:
    """A weight axis that keeps its size, and why."""

    tensor: str
    axis: int
    size: int
    reason: Reason


@dataclass
class Analysis:
    """Everything that is known about the dimensions of a model.

    Attributes:
        model: the model analysed (canonical form).
        operators: name and node of every operator in topological order, see `model.graph.operators`.
        shapes: concrete shapes and known constants.
        dims: per value the dimension of each axis.
        groups: what can be pruned, in topological order.
        frozen: the weight axes that cannot, with reasons.
        findings: constants that name sizes, contractions, tags.
        unruled: operators without a rule and their counts.
        activations: names of the values that depend on a graph input.
        batch: what `cost.batch_size` has found; None before it is asked.
    """

    model: ir.Model
    operators: list[tuple[str, ir.Node]]
    shapes: Shapes
    dims: dict[str, Dims]
    groups: list[Group] = field(default_factory=list)
    frozen: list[Frozen] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    unruled: Counter[str] = field(default_factory=Counter)
    activations: set[str] = field(default_factory=set)
    batch: int | None = None

    @cached_property
    def graph(self) -> nx.DiGraph:
        """The networkx view of the model, see `model.graph.view`."""
        return view(self.model)

    def names(self) -> dict[Atom, str]:
        """The id of each group by its atom, for printing dimensions."""
        return {group.atom: group.id for group in self.groups}

    def varies(self, ref: SizeRef) -> bool:
        """Is what a constant names an axis whose size differs from run to run?"""
        name = ref.node.outputs[0].name or ""
        axes = [axis for axis, handle in enumerate(self.dims.get(name, [])) if handle is ref.dim]
        return any((name, axis) in self.shapes.dynamic for axis in axes)
