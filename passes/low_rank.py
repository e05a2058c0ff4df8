"""A layer becomes two thinner ones where its outputs lie along few directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.layers import Layer, layers, plain_matrix
from onnxprune.ops.halves import halves
from onnxprune.passes.base import PassResult

Matrix = npt.NDArray[np.float64]


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
    node, stored = layer.node, layer.stored.shape
    assert stored is not None
    parts = halves(node, tuple(stored.numpy()), plain_matrix(layer)[0] @ directions, directions.T)
    moved = [each for name, each in node.attributes.items() if name in parts.moved]
    front = ir.Node("", parts.operator, [node.inputs[0], None], moved)
    for each in moved:
        node.attributes.pop(each.name)
    weight, dtype = layer.stored, layer.stored.dtype
    assert dtype is not None
    front.replace_input_with(1, _weight(model, f"{weight.name}/units", parts.first, dtype))
    front.name, front.outputs[0].name = f"{node.name or weight.name}/units", f"{layer.y or weight.name}/units"
    front.outputs[0].dtype = dtype
    model.graph.insert_before(node, front)
    node.replace_input_with(0, front.outputs[0])
    array = np.ascontiguousarray(parts.second.astype(dtype.numpy()))
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
