"""Which operators run on integers, and which values are quantized for them.

ONNX Runtime runs an operator on integers where it finds it between DequantizeLinear and QuantizeLinear. A value has one
such pair at most, behind the Relu that follows an operator, for that is merged into it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.layers import Layer
from onnxprune.ops.integer_kernels import (
    activation_slots,
    carries_integers,
    gives_integers,
    integer_obstacle,
    is_merged_into_grid,
    keeps_grid,
    mixes_operands,
)


@dataclass(frozen=True)
class Placement:
    """Where integers go.

    Attributes:
        layers: those whose weights and inputs are integers.
        carriers: further operators that run on integers.
        values: what is quantized, in topological order.
        same: values that have the grid of another, by name.
        kept: layers that stay in float, by name, and why.
    """

    layers: list[Layer]
    carriers: list[ir.Node]
    values: list[ir.Value]
    same: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)


def place(analysis: Analysis, found: Collection[Layer], left_out: Mapping[str, str]) -> Placement:
    """Decide for every operator of a model.

    Args:
        analysis: the model.
        found: its layers.
        left_out: names of layers that stay in float, and why.
    """
    kept = {layer.name: left_out.get(layer.name) or _obstacle(layer) for layer in found}
    chosen = {layer.node: layer for layer in found if not kept[layer.name]}
    values: dict[ir.Value, None] = {}
    carriers: list[ir.Node] = []
    same: dict[str, str] = {}
    integer: set[ir.Value] = set()  # quantized, and computed on integers
    for node in analysis.model.graph:
        if node in chosen:
            values.update(dict.fromkeys(_operands(node)))
            output = _behind(chosen[node].last)
            if gives_integers(node) or _feeds_integers(node, output, chosen):
                values[output] = None
                integer.add(output)
        elif _carries(node, integer):
            carriers.append(node)
            values.update(dict.fromkeys(_operands(node)))
            output = node.outputs[0] if keeps_grid(node) else _behind(node)
            values[output] = None
            integer.add(output)
            if keeps_grid(node):
                same[output.name or ""] = _operands(node)[0].name or ""
    return Placement(list(chosen.values()), carriers, list(values), same, {k: v for k, v in kept.items() if v})


def weight_obstacle(layer: Layer) -> str:
    """Why the weight of a layer cannot be stored as integers; empty where it can."""
    if layer.norm is not None:
        return "a normalization behind it that could not be folded"
    if not layer.path.is_exact:
        return "weights that are integers already" if layer.path.quantized else "weights that the graph computes"
    if layer.stored.dtype != ir.DataType.FLOAT:
        return "weights of another type than float32"
    return ""


def _obstacle(layer: Layer) -> str:
    """Why a layer cannot run on integers; empty where it can."""
    if layer.form.stack is not None:
        return "several products side by side"
    return weight_obstacle(layer) or integer_obstacle(layer.node)


def _operands(node: ir.Node) -> list[ir.Value]:
    """The activations that it reads."""
    return [value for slot in activation_slots(node) if (value := node.inputs[slot]) is not None]


def _behind(node: ir.Node) -> ir.Value:
    """The value that is quantized behind a node: what the Relu gives that alone reads its output, else that."""
    output = node.outputs[0]
    uses = list(output.uses())
    if len(uses) == 1 and not output.is_graph_output() and is_merged_into_grid(uses[0][0], output):
        return uses[0][0].outputs[0]
    return output


def _feeds_integers(node: ir.Node, output: ir.Value, chosen: Mapping[ir.Node, Layer]) -> bool:
    """Do layers alone read what comes out, as their input?"""
    uses = list(output.uses())
    direct = chosen[node].add is None  # an Add behind the product runs in float
    return direct and bool(uses) and not output.is_graph_output() and all(u in chosen and s == 0 for u, s in uses)


def _carries(node: ir.Node, integer: Collection[ir.Value]) -> bool:
    """Does an operator run on integers, since what it reads is quantized?"""
    if not carries_integers(node) or len([value for value in node.outputs if value.name and value.uses()]) > 1:
        return False
    read = _operands(node)
    if any(value.const_value is not None for value in read):
        return False
    enough = any if mixes_operands(node) else all
    return enough(value in integer for value in read)
