"""Affine layers: nodes that multiply an activation with a weight, in one form for Conv, Gemm and MatMul.

    y[group, row, o] = sum over f of rows[group, row, f] * matrix[group, f, o] + bias[group, o]

A row is a place where the layer is applied: a sample, a token, a pixel of a convolution's output. The features f of a
convolution are the taps of its window over the input channels of a group. Criteria take second moments of the rows,
recovery solves for the matrix; neither knows an operator: their forms are beside their rules, in `ops`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.names import distinct, layer_name
from onnxprune.model import graph as graphs
from onnxprune.model.inner_values import can_be_handed_out, repeats, way_to
from onnxprune.ops import find_form
from onnxprune.ops.base import Array, attribute, key_of
from onnxprune.ops.dequantize import activation_scale, behind_rounding, clips_below_zero, constant_input
from onnxprune.ops.dynamic_products import dynamic_product
from onnxprune.ops.matmul_view import (
    Form,
    Positions,
    by_product,
    by_sample,
    constant_of,
    read,
    weight_slot,
)
from onnxprune.ops.normalization import is_batch_norm, norm_deviation, norm_scale
from onnxprune.ops.traits import adds, rectifies
from onnxprune.ops.weight_paths import Link, WeightPath, constant, integers, readers_of, weight_path


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
        path: how the node comes by its weight from the initializer.
        end: the node that gives the real result: the operator, or where integers are scaled behind it, that.
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
    path: WeightPath
    end: ir.Node
    add: tuple[ir.Node, int] | None = None
    norm: ir.Node | None = None
    readers: int = 1

    @property
    def stored(self) -> ir.Value:
        """The initializer that the weight is stored as."""
        return self.path.value

    @property
    def operand(self) -> ir.Value:
        """The weight as the node reads it."""
        weight = self.node.inputs[weight_slot(self.node)]
        assert weight is not None
        return weight

    @property
    def has_bias(self) -> bool:
        """Is there a place for a bias: in the node, or behind it?"""
        return self.form.bias is not None or self.form.hidden is None

    @property
    def last(self) -> ir.Node:
        """The node that makes y."""
        return self.norm or (self.add[0] if self.add else self.end)

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


ShapeOf = Callable[[ir.Value], tuple[int, ...] | None]


def layers(analysis: Analysis, *, hidden: bool = False, bodies: bool = False) -> Iterator[Layer]:
    """The affine layers of an analysed model with weights that only layers read, in topological order.

    With `hidden` those too whose results are not values of the graph (see `Form.hidden`), as inside recurrent cells.
    With `bodies` those too in bodies of If, Loop and Scan whose values can be handed out, see `model.inner_values`.
    """
    main = analysis.model.graph
    nodes = ((name, node) for name, node in analysis.operators if bodies or node.graph is main)
    taken: set[str] = set()
    for layer in _layers(nodes, lambda value: analysis.shapes.shapes.get(value.name or "")):
        seen = layer.node.graph is main or _is_handed_out(layer, analysis)
        if seen and layer.x in analysis.activations and (hidden or layer.form.hidden is None):
            name = layer_name(layer.node, analysis.activations) or layer.name
            yield replace(layer, name=distinct(name, taken))


def _is_handed_out(layer: Layer, analysis: Analysis) -> bool:
    """Can what a layer of a body reads and makes be seen from outside, with rows of all steps along one axis?"""
    assert isinstance(layer.node.graph, ir.Graph)
    way = way_to(analysis.model, layer.node.graph)
    return can_be_handed_out(way) and (layer.form.stack != 0 or not repeats(way))


def layers_of(model: ir.Model) -> Iterator[Layer]:
    """Those with weights of their own, of a model that was not analysed, as far as the ranks that it declares allow.

    Weights that are stored in another form than the node reads them are left out.
    """
    constants = set(model.graph.initializers)
    for layer in _layers(((name, node) for node, name in graphs.operator_names(model)), _declared_shape):
        exact = layer.path.is_exact and layer.form.hidden is None
        if layer.x not in constants and layer.readers == 1 and exact:
            yield layer


def _declared_shape(value: ir.Value) -> tuple[int, ...] | None:
    """The shape in the file, with 0 for what is dynamic; empty where there is none."""
    if value.const_value is not None:
        return tuple(value.const_value.shape.numpy())
    path = weight_path(value)
    if path is not None and path.is_exact and path.links:
        return tuple(path.read().shape)
    return () if value.shape is None else tuple(size if isinstance(size, int) else 0 for size in value.shape)


def _layers(nodes: Iterable[tuple[str, ir.Node]], shape_of: ShapeOf) -> Iterator[Layer]:
    found = list(_candidates(nodes, shape_of))
    together: dict[ir.Value, list[Layer]] = {}
    for layer in found:
        together.setdefault(layer.stored, []).append(layer)
    for layer in found:
        readers = together[layer.stored]
        if len(readers) == layer.readers:  # nobody else reads the weight
            apart = layer.readers > 1 and _are_apart(readers)
            yield replace(layer, weight=f"{layer.weight}[{readers.index(layer)}]", readers=1) if apart else layer


def _are_apart(readers: Sequence[Layer]) -> bool:
    """Does each see a part of the initializer that no other sees, as the experts of a stack do?"""
    firsts = [layer.path.links[0] for layer in readers if layer.path.links and layer.path.links[0].part]
    const = readers[0].stored.const_value
    if len(firsts) < len(readers) or const is None:
        return False
    shape = tuple(const.shape.numpy())
    seen = np.concatenate([first.ahead(np.arange(prod(shape)).reshape(shape)).ravel() for first in firsts])
    return len(np.unique(seen)) == len(seen)


def _candidates(nodes: Iterable[tuple[str, ir.Node]], shape_of: ShapeOf) -> Iterator[Layer]:
    norms: set[ir.Node] = set()
    for name, node in nodes:
        make = find_form(key_of(node))
        if make is None or len(node.inputs) <= weight_slot(node) or node in norms:
            continue
        x, weight, dynamic = node.inputs[0], node.inputs[weight_slot(node)], dynamic_product(node)
        direct = dynamic.link if dynamic else integers(node, weight_slot(node))
        path = None if x is None or weight is None else _changeable(weight, direct, shape_of)
        if x is None or weight is None or path is None:
            continue
        x, end = (dynamic.x, dynamic.end) if dynamic else (x, node)
        x_shape, w_shape = shape_of(x), shape_of(weight)
        if x_shape is None or w_shape is None or shape_of(end.outputs[0]) is None:
            continue
        form = make(node, x_shape, w_shape)
        if form is None or (form.bias is not None and not _may_have_bias(node, form.bias)):
            continue
        count = sum(1 for _ in readers_of(path.value, shape_of))
        add = _bias_behind(end, form) if form.bias is None else None
        last = end if add is None else add[0]
        norm = _norm_behind(last) if form.out_axis == 1 and form.hidden is None and count == 1 else None
        norms.update(() if norm is None else (norm,))
        y = (norm or last).outputs[0]
        yield Layer(node, name, form, x.name or "", y.name or "", path.value.name or "", path, end, add, norm, count)


def _changeable(weight: ir.Value, direct: Link | None, shape_of: ShapeOf) -> WeightPath | None:
    """How a weight is stored, in numbers that can be chosen anew: real ones, or integers with a scale of their own.

    `direct` is what the operator itself makes of integers.
    """
    path = weight_path(weight, shape_of)
    const = None if path is None else path.value.const_value
    if path is None or const is None or path.value.is_graph_output():
        return None
    if const.dtype.is_floating_point():
        return path
    if direct and not path.quantized:
        path = replace(path, links=(*path.links, direct))
    shared = len(list(path.value.uses())) > 1  # scales of several readers
    return path if path.quantized and not shared else None


def _may_have_bias(node: ir.Node, slot: int) -> bool:
    """Is the bias absent, or a constant?"""
    value = node.inputs[slot] if slot < len(node.inputs) else None
    return value is None or weight_path(value) is not None


def _bias_behind(node: ir.Node, form: Form) -> tuple[ir.Node, int] | None:
    """The Add of a constant vector, or of one for each of several products, that alone reads the node's output."""
    products, at = 1 if form.stack is None else form.groups, -1 - form.behind
    output = behind_rounding(node.outputs[0])
    uses = list(output.uses())
    if len(uses) != 1 or output.is_graph_output() or not adds(uses[0][0]):
        return None
    add, slot = uses[0]
    path = weight_path(add.inputs[1 - slot])
    shape = () if path is None else path.read().shape
    vectors = (len(shape) > form.behind and prod(shape) == shape[at]) or (
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
    output = behind_rounding(layer.last.outputs[0])
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
    made = (behind.add if behind else layer.last).outputs[0]
    output = behind_rounding(made)
    uses = list(output.uses())
    return clips_below_zero(made) or (len(uses) == 1 and not output.is_graph_output() and rectifies(uses[0][0]))


def plain_matrix(layer: Layer) -> npt.NDArray[np.float64]:
    """The matrix of a layer's node, without a norm behind it: float64, shape [groups, features, outputs]."""
    return layer.form.matrix(layer.path.read()).astype(np.float64)


def matrix_of(layer: Layer) -> npt.NDArray[np.float64]:
    """The matrix of a layer: float64, shape [groups, features, outputs]."""
    matrix = plain_matrix(layer)
    if layer.norm is not None:
        matrix = matrix * norm_scale(layer.norm).reshape(len(matrix), 1, -1)
    return matrix


def _bias_input(layer: Layer) -> ir.Value | None:
    node, slot = layer.add or (layer.node, layer.form.bias)
    return node.inputs[slot] if slot is not None and slot < len(node.inputs) else None


def held_bias(layer: Layer) -> ir.Value | None:
    """The initializer that is the bias, or holds it; None where there is none."""
    value = _bias_input(layer) if layer.norm is None else layer.norm.inputs[2]
    path = weight_path(value)
    return None if path is None else path.value


def bias_of(layer: Layer, outputs: int) -> npt.NDArray[np.float64]:
    """The bias of a layer: float64, shape [groups * outputs]; zeros where there is none."""
    value, bias = _bias_input(layer), np.zeros(outputs)
    if value is not None:
        scale = float(attribute(layer.node, layer.form.bias_factor, 1.0)) if layer.add is None else 1.0
        array = constant(value).astype(np.float64)
        unit = bias_scale(layer) if value.dtype == ir.DataType.INT32 else None
        array = array if unit is None else array * unit
        own = np.split(array, layer.form.bias_parts, axis=-1)[0] if layer.add is None else array
        bias = np.resize(scale * own, outputs)
    if layer.norm is not None:
        shift, mean = (read(value).astype(np.float64) for value in layer.norm.inputs[2:4])
        bias = (bias - mean) * norm_scale(layer.norm) + shift
    return bias


def bias_scale(layer: Layer) -> Array | None:
    """The unit of a bias of 32 bits, that of input times weight, float32: [] or [outputs]; None where it has none."""
    link = layer.path.quantized
    if link is None or layer.form.bias is None:
        return None
    weights = None if link.scale is None else constant_input(*link.scale)
    inputs = constant_input(layer.node, 1) if link.node is layer.node else activation_scale(layer.node.inputs[0])
    if weights is None or inputs is None or inputs.size != 1 or weights.ndim > 1:
        return None
    return np.asarray(inputs.astype(np.float32).reshape(()) * weights.astype(np.float32))


def fittable(found: Sequence[Layer]) -> list[Layer]:
    """Those of some layers that can be given another matrix: all that share a weight are there, with the same one."""
    readers: dict[str, list[Layer]] = {}
    for layer in found:
        readers.setdefault(layer.weight, []).append(layer)
    return [layer for layer in found if _is_one_matrix(readers[layer.weight])]


def _is_one_matrix(readers: Sequence[Layer]) -> bool:
    first = readers[0]
    return len(readers) == first.readers and all(
        np.array_equal(matrix_of(first), matrix_of(other)) for other in readers[1:]
    )


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
    "bias_scale",
    "choose_positions",
    "constant_of",
    "fittable",
    "held_bias",
    "is_rectified",
    "layers",
    "layers_of",
    "matrix_of",
    "norm_deviation",
    "norm_scale",
    "plain_matrix",
    "read",
    "residual",
]
