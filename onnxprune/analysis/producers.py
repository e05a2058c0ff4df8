"""Which weights make the units of a dimension, as filters do, and which only read them.

A criterion that compares units looks at what makes them. Seen over the whole model one dimension may be both sides of
a weight (a square matrix on a residual stream), so every operator that reads data is looked at alone, with fresh
dimensions for its own values and for what they are computed from: the axes of a weight that come out of it make units.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.dims import Atom, atoms
from onnxprune.ops import find_rule
from onnxprune.ops.base import Dims, Op, RefuseError, canonical_domain, key_of
from onnxprune.ops.findings import Findings


def producing(analysis: Analysis) -> set[tuple[str, int]]:
    """The (tensor, axis) pairs of weight axes that come out of an operator that reads data.

    An operator without a rule, or with one that refuses, says nothing. A weight that one operator reads and another is
    made by (a tied embedding) counts as making.
    """
    return axes_of_units(analysis)[0]


def axes_of_units(analysis: Analysis) -> tuple[set[tuple[str, int]], set[tuple[str, int]]]:
    """The weight axes that make units, as `producing`, and those that read them: that an operator sums over."""
    operators = analysis.operators
    data = {value for _, node in operators for value in node.outputs if value.name in analysis.activations}
    data.update(value for value in analysis.model.graph.inputs if value.name in analysis.activations)
    making: set[tuple[str, int]] = set()
    reading: set[tuple[str, int]] = set()
    for _, node in operators:
        given = [value for value in node.inputs if value is not None]
        if not data.isdisjoint(node.outputs) and not data.issuperset(given):
            for place, comes_out in _sides(analysis, node, data):
                (making if comes_out else reading).add(place)
    return making, reading


def _sides(analysis: Analysis, node: ir.Node, data: set[ir.Value]) -> Iterator[tuple[tuple[str, int], bool]]:
    """Per axis of the weights of an operator whether it comes out of it; those that are only summed over do not."""
    chain = [*_computed_from_weights(node, data), node]
    shapes = analysis.shapes.shapes
    values = {value.name or "": value for each in chain for value in (*each.inputs, *each.outputs) if value is not None}
    if not all(name in shapes for name in values if name):
        return
    dims: dict[str, Dims] = {name: [Atom(size) for size in shapes[name]] for name in values if name}
    findings = Findings()
    for each in chain:
        if not _applied(each, dims, data, analysis, findings):
            return
    out = {atom for value in node.outputs if value.name for dim in dims[value.name] for atom in atoms(dim)}
    summed = {id(contraction.dim) for contraction in findings.contractions}
    over = {atom for contraction in findings.contractions for atom in atoms(contraction.summed)}
    for name, value in values.items():
        if value.is_initializer():
            for axis, dim in enumerate(dims[name]):
                if id(dim) not in summed and out.issuperset(atoms(dim)):
                    yield (name, axis), True
                elif over & set(atoms(dim)):
                    yield (name, axis), False


def _computed_from_weights(node: ir.Node, data: set[ir.Value]) -> list[ir.Node]:
    """The nodes that make the inputs of `node` from weights alone, in topological order."""
    found: dict[ir.Node, None] = {}

    def visit(inner: ir.Node) -> None:
        for value in inner.inputs:
            producer = None if value is None or value in data else value.producer()
            if producer is not None and producer not in found:
                visit(producer)
                found[producer] = None

    visit(node)
    return list(found)


def _applied(node: ir.Node, dims: dict[str, Dims], data: set[ir.Value], analysis: Analysis, findings: Findings) -> bool:
    """Let the rule of an operator say what it has to say about `dims`; False when it cannot."""
    domain, _ = key_of(node)
    opsets = {canonical_domain(name): version for name, version in analysis.model.graph.opset_imports.items()}
    rule = find_rule(key_of(node))
    if rule is None:
        return False
    try:
        rule(Op(node, node.name or "", dims, analysis.shapes.known, data, opsets.get(domain, 1), findings))
    except (RefuseError, ValueError, IndexError, TypeError):  # as in coupling: a form that the rule does not cover
        return False
    return True
