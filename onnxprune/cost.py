"""What a model costs: parameters, multiply-accumulates, bytes, nodes; also for a cut that has not been made yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from onnxprune.coupling import Analysis, Group
from onnxprune.dims import Atom, Dim, atoms, kept_size, project
from onnxprune.ops import find_cost
from onnxprune.ops.base import CostView, key_of

import numpy as np

ShapeOf = Callable[[str], tuple[int, ...] | None]


@dataclass(frozen=True)
class Cost:
    """Parameters (entries of weights), MACs of one inference at the sizes of the analysis, weight bytes, nodes."""

    parameters: int
    macs: int
    weight_bytes: int
    nodes: int


def is_parameter(value: ir.Value) -> bool:
    """Is an initializer a weight, rather than a shape constant or an index?"""
    return value.dtype is not None and (value.dtype.is_floating_point() or value.dtype.bitwidth <= 8) and (
        value.dtype not in (ir.DataType.BOOL, ir.DataType.STRING)
    )


def node_macs(node: ir.Node, shape_of: ShapeOf) -> int:
    """Multiply-accumulates of one node; 0 for operators without a cost rule or with unknown shapes."""
    rule = find_cost(key_of(node))
    if rule is None:
        return 0
    x = [() if value is None else shape_of(value.name or "") for value in node.inputs]
    y = [shape_of(value.name or "") if value.name else () for value in node.outputs]
    if any(shape is None for shape in (*x, *y[:1])):
        return 0
    return rule(CostView(node, [shape or () for shape in x], [shape or () for shape in y]))


def measure(analysis: Analysis, kept: Mapping[Atom, int] | None = None) -> Cost:
    """The cost of the model with `kept` units left in each atom (None: as it is)."""
    kept = kept or {}
    shape_of = shapes_after(analysis, kept)
    parameters = weight_bytes = 0
    for value in analysis.model.graph.initializers.values():
        if value.const_value is None or not is_parameter(value):
            continue
        size = int(np.prod(shape_of(value.name or "") or (), dtype=np.int64))
        parameters += size
        weight_bytes += (size * value.const_value.dtype.bitwidth + 7) // 8
    macs = sum(node_macs(node, shape_of) for node in analysis.model.graph)
    return Cost(parameters, macs, weight_bytes, len(analysis.model.graph))


def shapes_after(analysis: Analysis, kept: Mapping[Atom, int]) -> ShapeOf:
    """Shapes of all values with `kept` units left in each atom."""

    def shape_of(name: str) -> tuple[int, ...] | None:
        dims = analysis.dims.get(name)
        return None if dims is None else tuple(kept_size(dim, kept) for dim in dims)

    return shape_of


def group_costs(analysis: Analysis) -> dict[str, tuple[int, int]]:
    """Per group id: the parameters and MACs that hang on it, that is, that would go with its last unit."""
    readers = _nodes_by_atom(analysis)
    before = shapes_after(analysis, {})
    costs: dict[str, tuple[int, int]] = {}
    for group in analysis.groups:
        after = shapes_after(analysis, {group.atom: 0})
        macs = sum(node_macs(node, before) - node_macs(node, after) for node in readers.get(group.atom, ()))
        costs[group.id] = (_parameters_of(analysis, group), macs)
    return costs


def _parameters_of(analysis: Analysis, group: Group) -> int:
    gone: dict[str, float] = {}
    for occurrence in group.occurrences:
        share = entries_per_unit(occurrence.dim, group.atom) * group.units / occurrence.dim.size
        gone[occurrence.tensor] = gone.get(occurrence.tensor, 1.0) * (1.0 - share)
    total = 0.0
    for tensor, left in gone.items():
        value = analysis.model.graph.initializers[tensor]
        if value.const_value is not None and is_parameter(value):
            total += value.const_value.size * (1.0 - left)
    return round(total)


def entries_per_unit(dim: Dim, atom: Atom) -> float:
    """How many entries of an axis belong to one unit of an atom (the mean over its units)."""
    return float(project(dim, np.ones(dim.size))[atom].mean())


def _nodes_by_atom(analysis: Analysis) -> dict[Atom, list[ir.Node]]:
    found: dict[Atom, dict[ir.Node, None]] = {}
    for node in analysis.model.graph:
        if find_cost(key_of(node)) is None:
            continue
        for value in (*node.inputs, *node.outputs):
            for dim in analysis.dims.get(value.name or "", ()) if value is not None else ():
                for atom in atoms(dim):
                    found.setdefault(atom, {})[node] = None
    return {atom: list(nodes) for atom, nodes in found.items()}
