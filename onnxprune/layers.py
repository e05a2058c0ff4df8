"""Affine layers: nodes that multiply an activation with a weight, in one form for Conv, Gemm and MatMul.

    y[group, row, o] = sum over f of rows[group, row, f] * matrix[group, f, o] + bias[group, o]

A row is a place where the layer is applied: a sample, a token, a pixel of a convolution's output. The features f of a
convolution are the taps of its window over the input channels of a group. Criteria take second moments of the rows,
recovery solves for the matrix; neither knows an operator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune import graph as graphs
from onnxprune.coupling import Analysis
from onnxprune.model import reading
from onnxprune.ops.base import Key, attribute, key_of

Array = npt.NDArray[Any]
Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Form:
    """How one node is a matrix product.

    Attributes:
        axis: the axis of the input that holds the channels which are summed over.
        out_axis: the axis of the output that holds the results.
        taps: how many features each input channel gives (the size of a convolution's window).
        groups: how many independent products lie side by side.
        rows: input, positions -> [groups, samples * positions, features].
        matrix: weight -> [groups, features, outputs].
        weight: the inverse of `matrix`.
        bias: the input slot that a bias goes to; None: an Add behind the node.
    """

    axis: int
    out_axis: int
    taps: int
    groups: int
    rows: Callable[[Array, Positions | None], Array]
    matrix: Callable[[Array], Array]
    weight: Callable[[Array], Array]
    bias: int | None = None


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
        flat = _by_sample(np.moveaxis(y, self.form.out_axis, -1), positions)
        return flat.reshape(len(flat), self.form.groups, -1).transpose(1, 0, 2)

    def places(self, y_shape: tuple[int, ...]) -> int:
        """How many rows each sample gives."""
        return prod(size for axis, size in enumerate(y_shape) if axis not in (0, self.form.out_axis))

    def feature_channels(self, channels: int) -> npt.NDArray[np.int64]:
        """The input channel that each feature of each group reads: int64, shape [groups, features]."""
        by_group = np.arange(channels).reshape(self.form.groups, -1)
        return np.repeat(by_group, self.form.taps, axis=1)


def _by_sample(x: Array, positions: Positions | None) -> Array:
    """[N, ..., F] as rows [N * positions, F]; positions index what lies between."""
    flat = x.reshape(len(x), -1, x.shape[-1])
    if positions is not None:
        flat = flat[:, positions]
    return flat.reshape(-1, x.shape[-1])


MakeForm = Callable[[ir.Node, tuple[int, ...], tuple[int, ...]], "Form | None"]
FORMS: dict[Key, MakeForm] = {}


def _form(*names: str, domain: str = "") -> Callable[[MakeForm], MakeForm]:
    def add(function: MakeForm) -> MakeForm:
        FORMS.update({(domain, name): function for name in names})
        return function

    return add


def layers(analysis: Analysis) -> Iterator[Layer]:
    """The affine layers of an analysed model with weights that only they read, in topological order."""
    norms: set[ir.Node] = set()
    for name, node in graphs.operators(analysis.graph):
        make = FORMS.get(key_of(node))
        if make is None or len(node.inputs) < 2 or node.graph is not analysis.model.graph or node in norms:
            continue
        x, weight = node.inputs[0], node.inputs[1]
        if x is None or weight is None or x.name not in analysis.activations or not _is_own(weight):
            continue
        shapes = analysis.shapes.shapes
        if any(value.name not in shapes for value in (x, weight, node.outputs[0])):
            continue
        form = make(node, shapes[x.name or ""], shapes[weight.name or ""])
        if form is None or (form.bias is not None and not _may_have_bias(node, form.bias)):
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
    return value is None or value.const_value is not None


def _bias_behind(node: ir.Node) -> tuple[ir.Node, int] | None:
    """The Add of a constant vector that alone reads the node's output."""
    output = node.outputs[0]
    uses = list(output.uses())
    if len(uses) != 1 or output.is_graph_output() or key_of(uses[0][0]) != ("", "Add"):
        return None
    add, slot = uses[0]
    other = add.inputs[1 - slot]
    const = None if other is None else other.const_value
    if const is None or const.shape.rank() == 0 or prod(const.shape.numpy()) != const.shape.numpy()[-1]:
        return None
    return add, 1 - slot


def _norm_behind(node: ir.Node) -> ir.Node | None:
    """The BatchNormalization with constant parameters that alone reads what a node makes."""
    output = node.outputs[0]
    uses = list(output.uses())
    if len(uses) != 1 or output.is_graph_output() or key_of(node) == ("", "BatchNormalization"):
        return None
    return uses[0][0] if uses[0][1] == 0 and _is_batch_norm(uses[0][0]) else None


def _is_batch_norm(node: ir.Node) -> bool:
    """One that runs on constant statistics?"""
    return (
        key_of(node) == ("", "BatchNormalization")
        and not attribute(node, "training_mode", 0)
        and all(value is not None and value.const_value is not None for value in node.inputs[1:5])
    )


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
    uses = list(output.uses())
    if len(uses) != 1 or output.is_graph_output() or key_of(uses[0][0]) != ("", "Add"):
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
    uses = list(output.uses())
    return len(uses) == 1 and not output.is_graph_output() and key_of(uses[0][0]) == ("", "Relu")


def read(value: ir.Value | None) -> Array:
    """The array of an initializer. Raises ValueError when it is none."""
    if value is None or value.const_value is None:
        raise ValueError("not an initializer")
    with reading(value.const_value) as array:
        return np.array(array)


def matrix_of(layer: Layer) -> npt.NDArray[np.float64]:
    """The matrix of a layer: float64, shape [groups, features, outputs]."""
    matrix = layer.form.matrix(read(layer.node.inputs[1])).astype(np.float64)
    if layer.norm is not None:
        matrix = matrix * norm_scale(layer.norm).reshape(len(matrix), 1, -1)
    return matrix


def bias_of(layer: Layer, outputs: int) -> npt.NDArray[np.float64]:
    """The bias of a layer: float64, shape [groups * outputs]; zeros where there is none."""
    node, slot = layer.add or (layer.node, layer.form.bias)
    bias = np.zeros(outputs)
    if slot is not None and slot < len(node.inputs) and node.inputs[slot] is not None:
        scale = float(attribute(node, "beta", 1.0)) if key_of(node) == ("", "Gemm") else 1.0
        bias = np.broadcast_to(scale * read(node.inputs[slot]).astype(np.float64).reshape(-1), (outputs,)).copy()
    if layer.norm is not None:
        shift, mean = (read(value).astype(np.float64) for value in layer.norm.inputs[2:4])
        bias = (bias - mean) * norm_scale(layer.norm) + shift
    return bias


def norm_scale(norm: ir.Node) -> npt.NDArray[np.float64]:
    """What a BatchNormalization multiplies each channel with."""
    return read(norm.inputs[1]).astype(np.float64) / norm_deviation(norm)


def norm_deviation(norm: ir.Node) -> npt.NDArray[np.float64]:
    """What a BatchNormalization divides each channel by."""
    variance = read(norm.inputs[4]).astype(np.float64)
    deviation: npt.NDArray[np.float64] = np.sqrt(variance + float(attribute(norm, "epsilon", 1e-5)))
    return deviation


# -- the operators


@_form("Conv")
def _conv(node: ir.Node, _x: tuple[int, ...], w: tuple[int, ...]) -> Form:
    """Input [N, G*I, ...], weight [G*O, I, window]; features are (input channel, tap)."""
    groups, window = int(attribute(node, "group", 1)), w[2:]
    taps, rank = prod(window), len(window)
    strides = tuple(attribute(node, "strides", None) or [1] * rank)
    dilations = tuple(attribute(node, "dilations", None) or [1] * rank)

    def rows(array: Array, positions: Positions | None) -> Array:
        pads = _pads(node, array.shape[2:], window, strides, dilations)
        seen = _windows(np.pad(array, [(0, 0), (0, 0), *pads]), window, strides, dilations)
        n, channels, *places = seen.shape[: 2 + rank]
        if positions is not None:
            at: tuple[Any, ...] = np.unravel_index(positions, places)
            seen = seen[(slice(None), slice(None), *at)]
        chosen = seen.reshape(n, groups, channels // groups, -1, taps)
        return np.ascontiguousarray(chosen.transpose(1, 0, 3, 2, 4)).reshape(groups, -1, channels // groups * taps)

    def matrix(weight: Array) -> Array:
        return weight.reshape(groups, len(weight) // groups, -1).transpose(0, 2, 1)

    def back(matrix: Array) -> Array:
        outputs = matrix.shape[0] * matrix.shape[2]
        return matrix.transpose(0, 2, 1).reshape(outputs, -1, *window)

    return Form(1, 1, taps, groups, rows, matrix, back, bias=2)


def _windows(x: Array, window: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]) -> Array:
    """What each place of a convolution sees: a view [N, C, places..., window...]."""
    axes = tuple(range(2, x.ndim))
    reach = tuple((size - 1) * dilation + 1 for size, dilation in zip(window, dilations, strict=True))
    seen = np.lib.stride_tricks.sliding_window_view(x, reach, axis=axes)
    places = tuple(slice(None, None, stride) for stride in strides)
    inside = tuple(slice(None, None, dilation) for dilation in dilations)
    return seen[(slice(None), slice(None), *places, *inside)]


def _pads(
    node: ir.Node, sizes: tuple[int, ...], window: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]
) -> list[tuple[int, int]]:
    """Zeros before and behind each spatial axis (ONNX Conv, attributes auto_pad and pads)."""
    auto = attribute(node, "auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = []
        for size, taps, stride, dilation in zip(sizes, window, strides, dilations, strict=True):
            total = max((-(-size // stride) - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
            small, large = total // 2, total - total // 2
            pads.append((small, large) if auto == "SAME_UPPER" else (large, small))
        return pads
    flat = list(attribute(node, "pads", None) or []) if auto != "VALID" else []
    return list(zip(flat[: len(window)], flat[len(window) :], strict=True)) or [(0, 0)] * len(window)


@_form("Gemm")
def _gemm(node: ir.Node, _x: tuple[int, ...], _w: tuple[int, ...]) -> Form | None:
    """Input [N, I], weight [I, O] or its transpose."""
    if attribute(node, "transA", 0) or float(attribute(node, "beta", 1.0)) == 0:
        return None
    turned, alpha = bool(attribute(node, "transB", 0)), float(attribute(node, "alpha", 1.0))
    return Form(
        1,
        1,
        1,
        1,
        lambda array, _: array[None],
        lambda weight: alpha * (weight.T if turned else weight)[None],
        lambda matrix: (matrix[0].T if turned else matrix[0]) / alpha,
        bias=2,
    )


@_form("MatMul")
def _matmul(_node: ir.Node, x: tuple[int, ...], w: tuple[int, ...]) -> Form | None:
    """Input [..., I], weight [I, O]; the first axis enumerates samples."""
    if len(w) != 2 or len(x) < 2:
        return None
    last = len(x) - 1
    return Form(
        last,
        last,
        1,
        1,
        lambda array, positions: _by_sample(array, positions)[None],
        lambda weight: weight[None],
        lambda matrix: matrix[0],
    )


@_form("BatchNormalization")
def _batch_norm(node: ir.Node, x: tuple[int, ...], _w: tuple[int, ...]) -> Form | None:
    """Input [N, C, ...], scale [C]: a product of its own per channel. Its rows are taken relative to the mean."""
    if len(x) < 2 or not _is_batch_norm(node):
        return None

    def rows(array: Array, positions: Positions | None) -> Array:
        mean = read(node.inputs[3]).astype(array.dtype)
        centered: Array = _by_sample(np.moveaxis(array, 1, -1), positions) - mean
        return centered.T[:, :, None]

    return Form(
        1,
        1,
        1,
        x[1],
        rows,
        lambda scale: (scale / norm_deviation(node))[:, None, None],
        lambda matrix: matrix[:, 0, 0] * norm_deviation(node),
        bias=2,
    )


def choose_positions(places: int, limit: int, rng: np.random.Generator) -> Positions | None:
    """At most `limit` of the places where a layer is applied to a sample, sorted; None for all of them."""
    return None if places <= limit else np.sort(rng.choice(places, limit, replace=False))
