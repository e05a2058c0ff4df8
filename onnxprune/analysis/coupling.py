"""Walk the graph once, let the operator rules say which dimensions are the same, and read off the pruning groups.

This file names no operator: it reads the tables of `ops` and drives their rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from types import MappingProxyType

import onnx_ir as ir

from onnxprune.analysis.freezing import (
    freeze_dynamic,
    freeze_interface,
    freeze_sizes_given_by_data,
    freeze_sizes_that_round,
    freeze_sizes_used_as_data,
)
from onnxprune.analysis.groups import Analysis, Frozen, Group, Occurrence
from onnxprune.analysis.names import name_groups
from onnxprune.analysis.shape_inference import Shapes
from onnxprune.analysis.shapes import infer
from onnxprune.dims import Atom, atoms, freeze, resolve
from onnxprune.model import graph as graphs
from onnxprune.model.weights import is_weight
from onnxprune.ops import find_rule
from onnxprune.ops.base import Dims, Op, RefuseError, key_of
from onnxprune.ops.findings import Reason

NO_DIMS: Mapping[str, Dims] = MappingProxyType({})


def analyze(
    model: ir.Model,
    shapes: Shapes | None = None,
    start: Mapping[str, Dims] = NO_DIMS,
    open_ends: Collection[str] = (),
) -> Analysis:
    """Find the groups of a model in canonical form (see passes.canonicalize).

    Args:
        model: the model; it is not changed.
        shapes: its shapes where they are known already.
        start: what is known of the dimensions of weights before the walk, by name. A model that units were removed from
            starts with what is left of the dimensions that it had, so which unit is which is known afterwards.
        open_ends: inputs and outputs of the model that may lose units as well.
    """
    shapes = infer(model) if shapes is None else shapes
    analysis = Analysis(model, shapes, _first_dims(shapes, start))
    freeze_interface(analysis, open_ends)
    _walk(analysis)
    freeze_sizes_given_by_data(analysis)
    freeze_dynamic(analysis)
    freeze_sizes_that_round(analysis)
    freeze_sizes_used_as_data(analysis)
    _collect_groups(analysis)
    _label(analysis)
    name_groups(analysis)
    return analysis


def _first_dims(shapes: Shapes, start: Mapping[str, Dims]) -> dict[str, Dims]:
    """An atom for every axis of every value, but for those that are known."""
    found = {name: [Atom(size) for size in shape] for name, shape in shapes.shapes.items()}
    for name, dims in start.items():
        if tuple(dim.size for dim in dims) == shapes.shapes.get(name):
            found[name] = list(dims)
    return found


def _walk(analysis: Analysis) -> None:
    """One pass over the operators in topological order."""
    activations: set[ir.Value] = set(analysis.model.graph.inputs) - set(analysis.model.graph.initializers.values())
    for _, node in analysis.operators:
        inside = node.graph is not analysis.model.graph  # of a body, where the difference is not worth a search
        if inside or not activations.isdisjoint(graphs.reads(node)):
            activations.update(node.outputs)
        activations.update(value for body in graphs.subgraphs(node) for value in body.inputs)
    analysis.activations = {value.name or "" for value in activations}
    opsets = analysis.model.graph.opset_imports
    for name, node in analysis.operators:
        op = Op(node, name, analysis.dims, analysis.shapes.known, activations, _opset(opsets, node), analysis.findings)
        _apply_rule(op, analysis)
        for value in graphs.captured(node) if find_rule(key_of(node)) is None else ():
            for dim in analysis.dims.get(value.name or "", []):
                freeze(dim, op.reason("read inside the body of a control-flow operator", value.name or ""))


def _opset(opsets: dict[str, int], node: ir.Node) -> int:
    domain, _ = key_of(node)
    return opsets.get(domain, opsets.get("ai.onnx" if domain == "" else domain, 1))


def _apply_rule(op: Op, analysis: Analysis) -> None:
    domain, op_type = key_of(op.node)
    rule = find_rule((domain, op_type))
    if rule is None:
        analysis.unruled[f"{domain}.{op_type}".lstrip(".")] += 1
        op.freeze_everything("no rule for this operator")
        return
    values = (value.name for value in (*op.node.inputs, *op.node.outputs) if value is not None and value.name)
    unknown = next((name for name in values if name not in analysis.dims), None)
    if unknown is not None:
        reason = _unknown_shape(op, analysis)
        for dim in op.all_dims():
            freeze(dim, reason)
        return
    try:
        rule(op)
    except RefuseError as refusal:
        op.freeze_everything(str(refusal))
    except (ValueError, IndexError, TypeError):
        op.freeze_everything("a form of the operator that its rule does not foresee")
    else:
        op.freeze_unmentioned("the operator reads this axis by position")


def _unknown_shape(op: Op, analysis: Analysis) -> Reason:
    """Which value of unknown shape comes first on the way to an operator, and what makes it or runs its body."""

    def unknown(node: ir.Node) -> ir.Value | None:
        return next((value for value in graphs.reads(node) if value.name and value.name not in analysis.dims), None)

    node, value = op.node, unknown(op.node)
    seen = set[ir.Node]()
    while value is not None and node not in seen:
        seen.add(node)
        maker = value.producer() or _runner(value, analysis)
        if maker is None:
            break
        node, before = maker, unknown(maker)
        if before is None:
            break
        value = before
    if node.graph is not analysis.model.graph:  # nothing is known in a body that takes other shapes in every step
        node = next(each for _, each in analysis.operators for body in graphs.subgraphs(each) if body is node.graph)
    made = value if value is not None else next(each for each in op.node.outputs if each.name not in analysis.dims)
    name = next((name for name, each in analysis.operators if each is node), op.name)
    return Reason(f"the shape of '{made.name}' is not known before the run", name, node.op_type, made.name or "")


def _runner(value: ir.Value, analysis: Analysis) -> ir.Node | None:
    """The node that runs the body which a value comes into."""
    bodies = ((node, body) for _, node in analysis.operators for body in graphs.subgraphs(node))
    return next((node for node, body in bodies if any(each is value for each in body.inputs)), None)


def _collect_groups(analysis: Analysis) -> None:
    """Unfrozen atoms of at least two units that occur in a parameter, in topological order of those."""
    found: dict[Atom, Group] = {}
    position: Counter[tuple[str, int]] = Counter()
    for tensor in _weights_in_order(analysis):
        for axis, handle in enumerate(analysis.dims.get(tensor, [])):
            dim = resolve(handle)
            inside = dict.fromkeys(atoms(dim))
            for atom in inside:
                if atom.size < 2 or (tensor in analysis.shapes.known and atom.reason is not None):
                    continue  # nothing to take away, or a shape constant rather than a weight
                if atom.reason is not None:
                    reason = atom.reason if isinstance(atom.reason, Reason) else Reason(str(atom.reason))
                    analysis.frozen.append(Frozen(tensor, axis, atom.size, reason))
                    continue
                if atom not in found:
                    name = _first_axis(tensor, axis, len(inside), position)
                    found[atom] = Group(name, atom, [], first_axis=name)
                found[atom].occurrences.append(Occurrence(tensor, axis, dim))
    initializers = analysis.model.graph.initializers
    analysis.groups = [
        group for group in found.values() if any(is_weight(initializers[each.tensor]) for each in group.occurrences)
    ]


def _first_axis(tensor: str, axis: int, siblings: int, position: Counter[tuple[str, int]]) -> str:
    """`conv1.weight[0]`, with `.0`, `.1`, ... where several groups share the axis."""
    position[tensor, axis] += 1
    return f"{tensor}[{axis}]" + (f".{position[tensor, axis] - 1}" if siblings > 1 else "")


def _weights_in_order(analysis: Analysis) -> list[str]:
    """Initializers in the order in which operators first read them."""
    initializers = analysis.model.graph.initializers
    ordered: dict[str, None] = {}
    for _, node in analysis.operators:
        for value in graphs.reads(node):
            if value.name in initializers:
                ordered[value.name or ""] = None
    return list(ordered)


def _label(analysis: Analysis) -> None:
    """Say what the units of each group are, from the tags that the rules left on their dimensions."""
    tagged: dict[Atom, Counter[str]] = {}
    nested: set[Atom] = set()
    for tag, dim, _ in analysis.findings.tags:
        inside = dict.fromkeys(atoms(dim))
        for atom in inside:
            tagged.setdefault(atom, Counter())[tag] += 1
        if tag == "heads":
            prunable = [atom for atom in inside if atom.reason is None and atom.size > 1]
            nested.update(prunable[:1] if len(prunable) > 1 else [])
    for group in analysis.groups:
        tags = tagged.get(group.atom, Counter())
        group.statistics = "statistics" in tags
        group.kind = _kind(tags, group.atom in nested)


def _kind(tags: Counter[str], is_outer_head: bool) -> str:
    """Specific evidence first: a recurrent cell or an attention product says more than the layer that makes the units.

    A residual stream is normalized, or written by several linear layers, added up, and read by several.
    """
    if "recurrent" in tags:
        return "recurrent"
    if "heads" in tags:
        return "kv-heads" if is_outer_head else "heads"
    if "head-dim" in tags:
        return "head-dim"
    linear = tags["produced"] + tags["read"]
    if linear and "normalized" in tags and linear >= tags["channels"]:
        return "hidden"
    if tags["produced"] > 1 and tags["read"] > 1 and "residual" in tags and "channels" not in tags:
        return "hidden"
    return "channels" if tags["channels"] >= max(linear, 1) or "spatial" in tags else "neurons"
