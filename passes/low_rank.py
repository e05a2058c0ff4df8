"""A layer becomes two thinner ones where its outputs lie along few directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.layers import Layer, layers, plain_matrix
from onnxprune.ops.base import attribute
from onnxprune.passes.base import PassResult

Matrix = npt.NDArray[np.float64]

_OPERATORS = ("MatMul", "Gemm", "Conv", "LSTM", "GRU", "RNN")
_RECURRENT = ("LSTM", "GRU", "RNN")
# What a Conv says of its window, which goes to the first of the two.
_WINDOW = ("kernel_shape", "strides", "pads", "dilations", "auto_pad")


def splittable(layer: Layer) -> bool:
    """Is the layer one that `SplitLayers` can split: one float matrix that is stored as its operator reads it?"""
    node, form, dtype = layer.node, layer.form, layer.stored.dtype
    return (
        node.domain == ""
        and node.op_type in _OPERATORS
        and form.groups == 1
        and form.stack is None
        and layer.readers == 1
        and not layer.path.links
        and layer.stored.const_value is not None
        and len(list(layer.stored.uses())) == 1
        and dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16)
        and not attribute(node, "transA", 0)
        and not attribute(node, "layout", 0)
    )


@dataclass(frozen=True)
class SplitLayers:
    """Put a linear layer of few units in front of layers: their matrix becomes a product of two.

    Before:  x ── MatMul(W [256, 512]) ── y
    After:   x ── MatMul(W V [256, 40]) ── MatMul(V^T [40, 512]) ── y       V: 40 orthonormal directions of y

    Of a convolution the first one has the window, the second is 1x1; in front of an LSTM, GRU or RNN the inputs of
    all gates and directions go through the first. With as many directions as outputs the result is the same up to
    rounding; with fewer y keeps what lies along them. `directions` has, per name of a layer's weight, V: float64
    [outputs, units]. The units are a group like any other: more of them can be removed.
    """

    analysis: Analysis
    directions: Mapping[str, Matrix]

    def __call__(self, model: ir.Model) -> PassResult:
        """Apply in place. The analysis is that of the model, and holds no more afterwards."""
        if model is not self.analysis.model:
            raise ValueError("the model is not the one of the analysis")
        found = [layer for layer in layers(self.analysis, hidden=True) if layer.weight in self.directions]
        for layer in found:
            _split(model, layer, self.directions[layer.weight])
        return PassResult(model, bool(found))


def _split(model: ir.Model, layer: Layer, directions: Matrix) -> None:
    """One layer: a node in front of it that gives the units, and what the layer makes of them."""
    node, second = layer.node, directions.T
    first = plain_matrix(layer)[0] @ directions
    if node.op_type == "Conv":
        window = layer.stored.shape
        assert window is not None
        sizes = [int(size) for size in window[2:]]  # type: ignore[arg-type]
        kept = [each for name, each in node.attributes.items() if name in _WINDOW]
        front = ir.Node("", "Conv", [node.inputs[0], None], kept)
        first = first.T.reshape(len(second), -1, *sizes)
        second = second.T.reshape(*second.T.shape, *(1 for _ in sizes))
        for name in _WINDOW:
            node.attributes.pop(name, None)
    else:
        front = ir.Node("", "MatMul", [node.inputs[0], None])
        if node.op_type in _RECURRENT:
            parts = np.asarray(layer.path.read()).shape[0]
            second = second.T.reshape(parts, -1, len(second))
        elif node.op_type == "Gemm":  # its factor is in the matrix of the first already
            second = second / float(attribute(node, "alpha", 1.0))
            second = second.T if attribute(node, "transB", 0) else second
    weight, dtype = layer.stored, layer.stored.dtype
    assert dtype is not None
    front.replace_input_with(1, _weight(model, f"{weight.name}/units", first, dtype))
    front.name, front.outputs[0].name = f"{node.name or weight.name}/units", f"{layer.y or weight.name}/units"
    front.outputs[0].dtype = dtype
    model.graph.insert_before(node, front)
    node.replace_input_with(0, front.outputs[0])
    array = np.ascontiguousarray(second.astype(dtype.numpy()))
    weight.const_value, weight.shape = ir.Tensor(array, dtype=dtype, name=weight.name), ir.Shape(array.shape)


def _weight(model: ir.Model, name: str, array: Matrix, dtype: ir.DataType) -> ir.Value:
    stored = np.ascontiguousarray(array.astype(dtype.numpy()))
    value = ir.Value(
        name=name,
        shape=ir.Shape(stored.shape),
        type=ir.TensorType(dtype),
        const_value=ir.Tensor(stored, dtype=dtype, name=name),
    )
    model.graph.register_initializer(value)
    return value
