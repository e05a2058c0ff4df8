"""Affine layers: nodes that multiply an activation with a weight, in one form for Conv, Gemm and MatMul.

    y[group, row, o] = sum over f of rows[group, row, f] * matrix[group, f, o] + bias[group, o]

A row is a place where the layer is applied: a sample, a token, a pixel of a convolution's output. The features f of a
convolution are the taps of its window over the input channels of a group. Criteria take second moments of the rows,
recovery solves for the matrix; neither knows an operator: their forms stand beside their rules, in `ops`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.names import distinct, layer_name
from onnxprune.model import graph as graphs
from onnxprune.ops import find_form
from onnxprune.ops.base import Array, attribute, key_of
from onnxprune.ops.matmul_view import (
    Form,
    Positions,
    by_product,
    by_sample,
    constant_of,
    read,
    readers_of,
    stored_weight,
    turned,
)
from onnxprune.ops.normalization import is_batch_norm, norm_deviation, norm_scale
from onnxprune.ops.traits import adds, rectifies


@dataclass(frozen=True)
class Layer:
    """A node in that form, with the values that it reads and makes.

    Attributes:
        node: the operator.
        name: as a person calls it, for reports; see `analysis.names`.
        form: how it is a matrix product.
        x: name of the activation that it reads.
        y: name of the value that holds the result, behind the bias.
        weight: name of the initializer.
        add: the Add behind the node that holds the bias, with the slot of the bias; None where the node holds it or
            there is none.
        norm: the BatchNormalization that alone reads the result. It scales and shifts each output, so it belongs to
            the layer: matrix, bias and y are those with it.
        readers: how many layers read the weight. Those that share one have their norms for themselves.
    """

    node: ir.Node
    name: str
    form: Form
    x: str
    y: str
    weight: str
    add: tuple[ir.Node, int] | None = None
    norm: ir.Node | None = None
    readers: int = 1

    @property
    def stored(self) -> ir.Value:
        """The initializer that the weight is stored as."""
        weight = self.node.inputs[1]
        assert weight is not None
        return stored_weight(weight)[0]

    @property
    def last(self) -> ir.Node:
        """The node that makes y."""
        return self.norm or (self.add[0] if self.add else self.node)

    def outputs(self, y: Array, positions: Positions | None = None) -> Array:
        """The results as the product gives them: [groups, samples * positions, outputs]."""
        if self.form.stack is not None:
            return by_product(y, self.form.stack, positions)
        flat = by_sample(np.moveaxis(y, self.form.out_axis, -1), positions)
        return flat.reshape(len(flat), self.form.groups, -1).transpose(1, 0, 2)

    def places(self, y_shape: tuple[int, ...]) -> int:
        """How many rows each sample gives."""
        return prod(size for axis, size in enumerate(y_shape) if axis not in (0, self.form.out_axis, self.form.stack))

    def feature_channels(self, channels: int) -> npt.NDArray[np.int64]:
        """The input channel that each feature of each group reads: int64, shape [groups, features]."""
        by_group = np.arange(channels).reshape(1 if self.form.stack is not None else self.form.groups, -1)
        by_group = np.broadcast_to(by_group, (self.form.groups, by_group.shape[1]))
        return np.repeat(by_group, self.form.taps, axis=1)


def layers(analysis: Analysis, *, hidden: bool = False) -> Iterator[Layer]:
    """The affine layers of an analysed model with weights that only layers read, in topological order.

    With `hidden` those too whose results are no values of the graph (see `Form.hidden`), as inside recurrent cells.
    """
    nodes = ((name, node) for name, node in analysis.operators if node.graph is analysis.model.graph)
    taken: set[str] = set()
    for layer in _layers(nodes, lambda value: analysis.shapes.shapes.get(value.name or ""), hidden=hidden):
        if layer.x in analysis.activations:
            name = layer_name(layer.node, analysis.activations) or layer.name
            yield replace(layer, name=distinct(name, taken))


def layers_of(model: ir.Model) -> Iterator[Layer]:
    """Those with weights of their own, of a model that was not analysed, as far as the ranks that it declares allow."""
    constants = set(model.graph.initializers)
    for layer in _layers(((name, node) for node, name in graphs.operator_names(model)), _declared_shape):
        if layer.x not in constants and layer.readers == 1:
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
    found = list(_candidates(nodes, shape_of, hidden=hidden))
    together = Counter(layer.stored for layer in found)
    for layer in found:
        if together[layer.stored] == layer.readers:  # nobody else reads the weight
            yield layer


def _candidates(
    nodes: Iterable[tuple[str, ir.Node]],
    shape_of: Callable[[ir.Value], tuple[int, ...] | None],
    *,
    hidden: bool,
) -> Iterator[Layer]:
    norms: set[ir.Node] = set()
    for name, node in nodes:
        make = find_form(key_of(node))
        if make is None or len(node.inputs) < 2 or node in norms:
            continue
        x, weight = node.inputs[0], node.inputs[1]
        kept = None if x is None or weight is None else _changeable(weight)
        if x is None or weight is None or kept is None:
            continue
        value, order, sizes = kept
        x_shape = shape_of(x)
        if x_shape is None or shape_of(node.outputs[0]) is None:
            continue
        form = make(node, x_shape, tuple(sizes[axis] for axis in order))
        if form is None or (form.hidden is not None and not hidden):
            continue
        if form.bias is not None and not _may_have_bias(node, form.bias):
            continue
        count = len(readers_of(value))
        add = _bias_behind(node, 1 if form.stack is None else form.groups) if form.bias is None else None
        end = node if add is None else add[0]
        norm = _norm_behind(end) if form.out_axis == 1 and form.hidden is None and count == 1 else None
        norms.update(() if norm is None else (norm,))
        y = (norm or end).outputs[0]
        form = form if order == sorted(order) else turned(form, order)
        yield Layer(node, name, form, x.name or "", y.name or "", value.name or "", add, norm, count)


def _changeable(weight: ir.Value) -> tuple[ir.Value, list[int], tuple[int, ...]] | None:
    """The floating-point initializer that a weight is stored as, the order of its axes, and its shape as stored."""
    try:
        value, order = stored_weight(weight)
    except ValueError:
        return None
    const = value.const_value
    if const is None or not const.dtype.is_floating_point() or value.is_graph_output():
        return None
    return value, order, tuple(const.shape.numpy())


def _may_have_bias(node: ir.Node, slot: int) -> bool:
    """Is the bias absent, or a constant?"""
    value = node.inputs[slot] if slot < len(node.inputs) else None
    return value is None or constant_of(value) is not None


def _bias_behind(node: ir.Node, products: int) -> tuple[ir.Node, int] | None:
    """The Add of a constant vector, or of one for each of several products, that alone reads the node's output."""
    output = node.outputs[0]
    uses = list(output.uses())
    if len(uses) != 1 or output.is_graph_output() or not adds(uses[0][0]):
        return None
    add, slot = uses[0]
    other = add.inputs[1 - slot]
    const = constant_of(other)
    shape = () if const is None else const.shape.numpy()
    vectors = (shape and prod(shape) == shape[-1]) or (
        shape[-3:-1] == (products, 1) and prod(shape) == products * shape[-1]
    )
    return (add, 1 - slot) if vectors else None


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
    uses = [] if layer.form.hidden is not None else list(output.uses())
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
    if layer.form.hidden is not None:
        return layer.form.rectified
    output = (behind.add if behind else layer.last).outputs[0]
    uses = list(output.uses())
    return len(uses) == 1 and not output.is_graph_output() and rectifies(uses[0][0])


def matrix_of(layer: Layer) -> npt.NDArray[np.float64]:
    """The matrix of a layer: float64, shape [groups, features, outputs]."""
    matrix = layer.form.matrix(read(layer.stored)).astype(np.float64)
    if layer.norm is not None:
        matrix = matrix * norm_scale(layer.norm).reshape(len(matrix), 1, -1)
    return matrix


def held_bias(layer: Layer) -> ir.Value | None:
    """The initializer that is the bias, or holds it; None where there is none."""
    node, slot = (layer.norm, 2) if layer.norm is not None else layer.add or (layer.node, layer.form.bias)
    value = node.inputs[slot] if slot is not None and slot < len(node.inputs) else None
    return None if value is None else stored_weight(value)[0]


def bias_of(layer: Layer, outputs: int) -> npt.NDArray[np.float64]:
    """The bias of a layer: float64, shape [groups * outputs]; zeros where there is none."""
    node, slot = layer.add or (layer.node, layer.form.bias)
    bias = np.zeros(outputs)
    if slot is not None and slot < len(node.inputs) and node.inputs[slot] is not None:
        scale = float(attribute(node, layer.form.bias_factor, 1.0))
        array = read(node.inputs[slot]).astype(np.float64)
        own = np.split(array, layer.form.bias_parts, axis=-1)[0] if layer.add is None else array
        bias = np.resize(scale * own, outputs)
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
    "held_bias",
    "is_rectified",
    "layers",
    "layers_of",
    "matrix_of",
    "norm_deviation",
    "norm_scale",
    "read",
    "residual",
]
