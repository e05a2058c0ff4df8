"""The cost of a model: parameters, multiply-accumulates, bytes, nodes; also for a cut that has not been made yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import onnx_ir as ir

from onnxprune.analysis.dynamic_axes import symbol_of
from onnxprune.analysis.groups import Analysis, Group
from onnxprune.dims import Atom, Dim, atoms, kept_size, project
from onnxprune.model.signature import declared_ports
from onnxprune.model.weights import is_weight
from onnxprune.ops import find_cost
from onnxprune.ops.base import CostView, key_of
from onnxprune.ops.traits import is_parameter, is_running_statistic

ShapeOf = Callable[[str], tuple[int, ...] | None]


@dataclass(frozen=True)
class Cost:
    """Parameters (entries of weights, no running statistics), MACs of one inference at the sizes of the analysis, bytes
    of all weights, nodes.
    """

    parameters: int
    macs: int
    weight_bytes: int
    nodes: int


def stored_cost(model: ir.Model) -> Cost:
    """The content of a model as it is, constants inside nodes included; its MACs need an analysis and are left at 0."""
    nodes = list(ir.traversal.RecursiveGraphIterator(model.graph))
    graphs = {node.graph for node in nodes if isinstance(node.graph, ir.Graph)} | {model.graph}
    values = [value for graph in graphs for value in graph.initializers.values()]
    tensors = [value.const_value for value in values]
    for function in model.functions.values():
        nodes.extend(ir.traversal.RecursiveGraphIterator(function))
    for node in nodes:
        # not as_tensor(), which takes 100 us to make sure that it is one
        tensors += [attr.value for attr in node.attributes.values() if attr.type == ir.AttributeType.TENSOR]
    weights = [tensor for tensor in tensors if tensor is not None and is_weight(tensor)]
    running = [value.const_value for value in values if value.const_value and is_running_statistic(value)]
    parameters = sum(each.size for each in weights) - sum(each.size for each in running)
    return Cost(parameters, 0, sum(each.nbytes for each in weights), len(nodes))


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


def cost_of(analysis: Analysis, kept: Mapping[Atom, int] | None = None) -> Cost:
    """The cost of the model with `kept` units left in each atom (None: as it is)."""
    kept = kept or {}
    shape_of = shapes_after(analysis, kept)
    parameters = weight_bytes = 0
    for value in analysis.model.graph.initializers.values():
        if value.const_value is None or not is_weight(value):
            continue
        size = int(np.prod(shape_of(value.name or "") or (), dtype=np.int64))
        parameters += size if is_parameter(value) else 0
        weight_bytes += (size * value.const_value.dtype.bitwidth + 7) // 8
    macs = sum(node_macs(node, shape_of) for _, node in analysis.operators)
    return Cost(parameters, macs, weight_bytes, len(analysis.model.graph))


def before(analysis: Analysis) -> Cost:
    """The cost of the model of an analysis as it is in the file, MACs per sample (see `batch_size`)."""
    meta = analysis.model.meta
    stored_cost: Cost = meta["stored"]
    return replace(stored_cost, macs=meta.get("macs") or macs_of(analysis) // batch_size(analysis))


def macs_of(analysis: Analysis) -> int:
    """MACs of one inference at the sizes of the analysis. They are kept in the analysis."""
    if analysis.macs is None:
        analysis.macs = cost_of(analysis).macs
    return analysis.macs


def batch_size(analysis: Analysis) -> int:
    """The size of the dynamic batch axis that all MACs of `measure` are a multiple of; 1 where there is no such axis.

    An analysis works at sizes of its own choice. That MACs scale with the batch is not assumed but tried: where they
    do not (weights that are computed from the input, say) the answer is 1. It is kept in the analysis.
    """
    if analysis.batch is None:
        analysis.batch = _batch_size(analysis)
    return analysis.batch


def _batch_size(analysis: Analysis) -> int:
    batched = _batched_inputs(analysis)
    if not batched:
        return 1
    name, axis = batched[0]
    size = analysis.shapes.shapes[name][axis]
    firsts = [analysis.dims[name][axis] for name, axis in batched]
    varying = [analysis.dims[name][axis] for name, axis in analysis.shapes.dynamic if name in analysis.dims]
    for batches in (firsts, [*firsts, *(dim for dim in varying if dim.size == size)]):  # a reshape may break the trail
        single = {atom: 1 for dim in batches for atom in atoms(dim)}
        if cost_of(analysis, single).macs * size == macs_of(analysis):
            return size
    return 1


def sizes_of_sample(analysis: Analysis) -> dict[str, int]:
    """The size of each dynamic axis at which MACs, divided by `batch_size`, are counted."""
    sizes = dict(analysis.shapes.bindings)
    if batch_size(analysis) > 1:
        axes = dict(_batched_inputs(analysis))
        inputs = (value for value in analysis.model.graph.inputs if value.name in axes)
        sizes.update({symbol_of(value, axes[value.name or ""]): 1 for value in inputs})
    return sizes


def _batched_inputs(analysis: Analysis) -> list[tuple[str, int]]:
    """Inputs whose batch axis is dynamic, with that axis."""
    ports = declared_ports(analysis.model)
    axes = [(port.name, port.batch_axis) for port in ports if port.batch_symbol and port.batch_axis is not None]
    return [(name, axis) for name, axis in axes if (name, axis) in analysis.shapes.dynamic and analysis.dims.get(name)]


def shapes_after(analysis: Analysis, kept: Mapping[Atom, int]) -> ShapeOf:
    """Shapes of all values with `kept` units left in each atom."""

    @cache
    def shape_of(name: str) -> tuple[int, ...] | None:
        dims = analysis.dims.get(name)
        return None if dims is None else tuple(kept_size(dim, kept) for dim in dims)

    return shape_of


def group_costs(analysis: Analysis) -> dict[str, tuple[int, int]]:
    """Per group id: the parameters and MACs that hang on it, that is, that would go with its last unit."""
    readers = _nodes_by_atom(analysis)
    whole = shapes_after(analysis, {})
    costs: dict[str, tuple[int, int]] = {}
    for group in analysis.groups:
        after = shapes_after(analysis, {group.atom: 0})
        macs = sum(node_macs(node, whole) - node_macs(node, after) for node in readers.get(group.atom, ()))
        costs[group.id] = (_parameters_of(analysis, group), macs)
    return costs


def _parameters_of(analysis: Analysis, group: Group) -> int:
    remaining: dict[str, float] = {}
    for occurrence in group.occurrences:
        share = entries_per_unit(occurrence.dim, group.atom) * group.units / occurrence.dim.size
        remaining[occurrence.tensor] = remaining.get(occurrence.tensor, 1.0) * (1.0 - share)
    total = 0.0
    for tensor, left in remaining.items():
        value = analysis.model.graph.initializers[tensor]
        if value.const_value is not None and is_parameter(value):
            total += value.const_value.size * (1.0 - left)
    return round(total)


def entries_per_unit(dim: Dim, atom: Atom) -> float:
    """How many entries of an axis belong to one unit of an atom (the mean over its units)."""
    return float(project(dim, np.ones(dim.size))[atom].mean())


def _nodes_by_atom(analysis: Analysis) -> dict[Atom, list[ir.Node]]:
    found: dict[Atom, dict[ir.Node, None]] = {}
    for _, node in analysis.operators:
        if find_cost(key_of(node)) is None:
            continue
        for value in (*node.inputs, *node.outputs):
            for dim in analysis.dims.get(value.name or "", ()) if value is not None else ():
                for atom in atoms(dim):
                    found.setdefault(atom, {})[node] = None
    return {atom: list(nodes) for atom, nodes in found.items()}
