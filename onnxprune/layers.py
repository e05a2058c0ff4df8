"""Affine layers: nodes that multiply an activation with a weight, in one form for Conv, Gemm and MatMul.

    y[group, row, o] = sum over f of rows[group, row, f] * matrix[group, f, o] + bias[group, o]

A row is a place where the layer is applied: a sample, a token, a pixel of a convolution's output. The features f of a
convolution are the taps of its window over the input channels of a group. Criteria take second moments of the rows,
recovery solves for the matrix; neither knows an operator: their forms stand beside their rules, in `ops`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune import graph as graphs
from onnxprune.coupling import Analysis
from onnxprune.ops import find_form
from onnxprune.ops.affine import Form, Positions, by_sample, constant_of, read
from onnxprune.ops.base import Array, attribute, key_of
from onnxprune.ops.normalization import is_batch_norm, norm_deviation, norm_scale
from onnxprune.ops.traits import adds, rectifies


@dataclass(frozen=True)
class Layer:
    """A node in that form, with the values that it reads and makes.

    Attributes:
        node: the operator.
        name: its name in reports.
        form: how it is a matrix product.
        x: name of the activation that it reads.
        y: name of the value that holds the result, behind the bias.
        weight: name of the initializer.
        add: the Add behind the node that holds the bias, with the slot of the bias; None where the node holds it or
            there is none.
        norm: the BatchNormalization that alone reads the result. It scales and shifts each output, so it belongs to
            the layer: matrix, bias and y are those with it.
    """

    node: ir.Node
    name: str
    form: Form
    x: str
    y: str
    weight: str
    add: tuple[ir.Node, int] | None = None
    norm: ir.Node | None = None

    @property
    def last(self) -> ir.Node:
        """The node that makes y."""
        return self.norm or (self.add[0] if self.add else self.node)

    def outputs(self, y: Array, positions: Positions | None = None) -> Array:
        """The results as the product gives them: [groups, samples * positions, outputs]."""
        flat = by_sample(np.moveaxis(y, self.form.out_axis, -1), positions)
        return flat.reshape(len(flat), self.form.groups, -1).transpose(1, 0, 2)

    def places(self, y_shape: tuple[int, ...]) -> int:
        """How many rows each sample gives."""
        return prod(size for axis, size in enumerate(y_shape) if axis not in (0, self.form.out_axis))

    def feature_channels(self, channels: int) -> npt.NDArray[np.int64]:
        """The input channel that each feature of each group reads: int64, shape [groups, features]."""
        by_group = np.arange(channels).reshape(self.form.groups, -1)
        return np.repeat(by_group, self.form.taps, axis=1)


def layers(analysis: Analysis, *, hidden: bool = False) -> Iterator[Layer]:
    """The affine layers of an analysed model with weights that only they read, in topological order.

    With `hidden` those inside recurrent cells too, whose results are no values of the graph (see `Form.hidden`).
    """
    nodes = ((name, node) for name, node in graphs.operators(analysis.graph) if node.graph is analysis.model.graph)
    for layer in _layers(nodes, lambda value: analysis.shapes.shapes.get(value.name or ""), hidden=hidden):
        if layer.x in analysis.activations:
            yield layer


def layers_of(model: ir.Model) -> Iterator[Layer]:
    """The same for a model that was not analysed, as far as the ranks that it declares allow."""
    constants = set(model.graph.initializers)
    for layer in _layers(((name, node) for node, name in graphs.operator_names(model)), _declared_shape):
        if layer.x not in constants:
            yield layer


def _declared_shape(value: ir.Value) -> tuple[int, ...] | None:
    """The shape that stands in the file, with 0 for what is dynamic; empty where there is none."""
    if value.const_value is not None:
        return tuple(value.const_value.shape.numpy())
    return () if value.shape is None else tuple(size if isinstance(size, int) else 0 for size in value.shape)


def _layers(
    nodes: Iterable[tuple[str, ir.Node]],
    shape_of: Callable[[ir.Value], tuple[int, ...] | None],
    *,
    hidden: bool = False,
) -> Iterator[Layer]:
    norms: set[ir.Node] = set()
    for name, node in nodes:
        make = find_form(key_of(node))
        if make is None or len(node.inputs) < 2 or node in norms:
            continue
        x, weight = node.inputs[0], node.inputs[1]
        if x is None or weight is None or not _is_own(weight):
            continue
        shapes = [shape_of(value) for value in (x, weight, node.outputs[0])]
        if shapes[0] is None or shapes[1] is None or shapes[2] is None:
            continue
        form = make(node, shapes[0], shapes[1])
        if form is None or form.hidden > hidden or (form.bias is not None and not _may_have_bias(node, form.bias)):
            continue
        add = _bias_behind(node) if form.bias is None else None
        end = node if add is None else add[0]
        norm = _norm_behind(end) if form.out_axis == 1 else None
        norms.update(() if norm is None else (norm,))
        y = (norm or end).outputs[0]
        yield Layer(node, name, form, x.name or "", y.name or "", weight.name or "", add, norm)


def _is_own(weight: ir.Value) -> bool:
    """A floating-point initializer with one reader, so that it can be changed."""
    const = weight.const_value
    return const is not None and const.dtype.is_floating_point() and len(list(weight.uses())) == 1


def _may_have_bias(node: ir.Node, slot: int) -> bool:
    """Is the bias absent, or a constant?"""
    value = node.inputs[slot] if slot < len(node.inputs) else None
    return value is None or constant_of(value) is not None


def _bias_behind(node: ir.Node) -> tuple[ir.Node, int] | None:
    """The Add of a constant vector that alone reads the node's output."""
    output = node.outputs[0]
    uses = list(output.uses())
    if len(uses) != 1 or output.is_graph_output() or not adds(uses[0][0]):
        return None
    add, slot = uses[0]
    other = add.inputs[1 - slot]
    const = constant_of(other)
    if const is None or const.shape.rank() == 0 or prod(const.shape.numpy()) != const.shape.numpy()[-1]:
        return None
    return add, 1 - slot


def _norm_behind(node: ir.Node) -> ir.Node | None:
    """The BatchNormalization with constant parameters that alone reads what a node makes."""
    output = node.outputs[0]
    uses = list(output.uses())
    if len(uses) != 1 or output.is_graph_output() or is_batch_norm(node):
        return None
    return uses[0][0] if uses[0][1] == 0 and is_batch_norm(uses[0][0]) else None


@dataclass(frozen=True)
class Residual:
    """The Add that puts a layer's output onto a stream, and the name of what it is added to."""

    add: ir.Node
    skip: str

    @property
    def sum(self) -> str:
        """Name of what comes out."""
        return self.add.outputs[0].name or ""


def residual(layer: Layer, analysis: Analysis) -> Residual | None:
    """The Add that alone reads the layer's output, if its other operand is an activation of the same shape."""
    output = layer.last.outputs[0]
    uses = [] if layer.form.hidden else list(output.uses())
    if len(uses) != 1 or output.is_graph_output() or not adds(uses[0][0]):
        return None
    add, slot = uses[0]
    other = add.inputs[1 - slot]
    if other is None or other.name not in analysis.activations:
        return None
    shapes = analysis.shapes.shapes
    return Residual(add, other.name or "") if shapes.get(other.name or "") == shapes.get(layer.y) else None


def is_rectified(layer: Layer, behind: Residual | None) -> bool:
    """Is the layer's output, with what it is added to, read by a Relu alone? Then what is negative does not matter."""
    output = (behind.add if behind else layer.last).outputs[0]
    uses = [] if layer.form.hidden else list(output.uses())
    return len(uses) == 1 and not output.is_graph_output() and rectifies(uses[0][0])


def matrix_of(layer: Layer) -> npt.NDArray[np.float64]:
    """The matrix of a layer: float64, shape [groups, features, outputs]."""
    matrix = layer.form.matrix(read(layer.node.inputs[1])).astype(np.float64)
    if layer.norm is not None:
        matrix = matrix * norm_scale(layer.norm).reshape(len(matrix), 1, -1)
    return matrix


def has_bias(layer: Layer) -> bool:
    """Is there a constant that is the bias, or holds it?"""
    node, slot = layer.add or (layer.node, layer.form.bias)
    return layer.norm is not None or (slot is not None and slot < len(node.inputs) and node.inputs[slot] is not None)


def bias_of(layer: Layer, outputs: int) -> npt.NDArray[np.float64]:
    """The bias of a layer: float64, shape [groups * outputs]; zeros where there is none."""
    node, slot = layer.add or (layer.node, layer.form.bias)
    bias = np.zeros(outputs)
    if slot is not None and slot < len(node.inputs) and node.inputs[slot] is not None:
        scale = float(attribute(node, layer.form.bias_factor, 1.0))
        array = read(node.inputs[slot]).astype(np.float64)
        array = np.split(array, 2, axis=1)[0] if layer.form.hidden else array
        bias = np.broadcast_to(scale * array.reshape(-1), (outputs,)).copy()
    if layer.norm is not None:
        shift, mean = (read(value).astype(np.float64) for value in layer.norm.inputs[2:4])
        bias = (bias - mean) * norm_scale(layer.norm) + shift
    return bias


def choose_positions(places: int, limit: int, rng: np.random.Generator) -> Positions | None:
    """At most `limit` of the places where a layer is applied to a sample, sorted; None for all of them."""
    return None if places <= limit else np.sort(rng.choice(places, limit, replace=False))


__all__ = [
    "Array",
    "Form",
    "Layer",
    "Positions",
    "Residual",
    "bias_of",
    "choose_positions",
    "constant_of",
    "has_bias",
    "is_rectified",
    "layers",
    "layers_of",
    "matrix_of",
    "norm_deviation",
    "norm_scale",
    "read",
    "residual",
]
