"""Weights as integers in the file, with their scales beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.analysis.layers import Layer, read
from onnxprune.ops.matmul_view import weight_slot
from onnxprune.steps.quantize.fit import IntegerWeights
from onnxprune.steps.quantize.insert import Editor

_INT8, _INT32 = ir.DataType.INT8, ir.DataType.INT32


def store_weights(editor: Editor, layer: Layer, weights: IntegerWeights, stored: dict[str, ir.Value]) -> None:
    """Have a layer read integers through a DequantizeLinear, as it would read its weights.

    `stored` is what was stored before, by the name of what a layer read: layers that share a weight go on sharing it.
    """
    name = layer.operand.name or ""
    if name not in stored:
        array, axis = as_read(layer, weights)
        node = editor.dequantized(layer.weight, array.astype(np.int8), weights.scales.reshape(-1), _INT8, axis)
        editor.before(layer.node, node)
        stored[name] = node.outputs[0]
    replace_input(editor.model, layer.node, weight_slot(layer.node), stored[name])


def as_read(layer: Layer, weights: IntegerWeights) -> tuple[npt.NDArray[Any], int]:
    """The integers as the layer's node reads its weight, and the axis along which the outputs lie."""
    array = layer.form.weight(weights.integers)
    groups, _, outputs = weights.integers.shape
    numbers = np.arange(groups * outputs).reshape(groups, 1, outputs)
    along = layer.form.weight(np.broadcast_to(numbers, weights.integers.shape))
    axis = next(axis for axis, size in enumerate(along.shape) if size == numbers.size and _runs(along, axis))
    return array, axis


def _runs(along: npt.NDArray[Any], axis: int) -> bool:
    """Does an axis enumerate the outputs?"""
    first = np.moveaxis(along, axis, 0).reshape(along.shape[axis], -1)
    return bool((first == np.arange(along.shape[axis])[:, None]).all())


def store_bias(editor: Editor, layer: Layer, weights: IntegerWeights, x_scale: float) -> None:
    """Store the bias of a node in units of what one unit of input times one of weight gives, as kernels add it."""
    slot = layer.form.bias
    value = layer.node.inputs[slot] if slot is not None and slot < len(layer.node.inputs) else None
    if slot is None or value is None:
        return
    unit = np.float32(x_scale) * weights.scales.reshape(-1).astype(np.float32)
    bias = read(value).astype(np.float64).reshape(-1)
    integers = np.clip(np.rint(np.broadcast_to(bias, unit.shape) / unit), -(2**31), 2**31 - 1).astype(np.int32)
    node = editor.dequantized(value.name or "bias", integers, unit, _INT32, 0)
    editor.before(layer.node, node)
    replace_input(editor.model, layer.node, slot, node.outputs[0])


def replace_input(model: ir.Model, node: ir.Node, slot: int, value: ir.Value) -> None:
    """Have a node read another value; weights that nothing reads any more are dropped, and what only fed them."""
    old = node.inputs[slot]
    node.replace_input_with(slot, value)
    while old is not None and not old.uses() and not old.is_graph_output():
        maker = old.producer()
        if maker is None:
            if old.is_initializer() and not old.is_graph_input():
                del model.graph.initializers[old.name or ""]
            return
        old = maker.inputs[0]
        model.graph.remove(maker, safe=True)
