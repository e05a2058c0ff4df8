"""Weights alone as integers: the file is smaller, products are computed in float."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxprune.analysis.copy import copy_analysis
from onnxprune.analysis.layers import Layer, layers, matrix_of, read
from onnxprune.errors import UsageError
from onnxprune.model.graph import operator_names, remove_dead
from onnxprune.ops.integer_kernels import has_packed_kernel, is_recurrent
from onnxprune.steps.quantize.base import Quantized, QuantizeJob, quantized_type
from onnxprune.steps.quantize.fit import LayerNoise, round_nearest
from onnxprune.steps.quantize.grids import TINY
from onnxprune.steps.quantize.insert import Editor
from onnxprune.steps.quantize.packed import BLOCK, store_packed
from onnxprune.steps.quantize.placement import weight_obstacle
from onnxprune.steps.quantize.store import store_weights

_INT8 = ir.DataType.INT8


@quantized_type("int8-weights")
def int8_weights(job: QuantizeJob) -> Quantized:
    """Weights in 8 bits, activations in float: no data is needed, and every processor takes them."""
    return _weights_only(job, 8)


@quantized_type("int4-weights")
def int4_weights(job: QuantizeJob) -> Quantized:
    """Weights of MatMul and Gemm in 4 bits, in blocks of 32 with a scale each; all others in 8."""
    return _weights_only(job, 4)


def _weights_only(job: QuantizeJob, bits: int) -> Quantized:
    """MatMulNBits for products, DequantizeLinear of weights for the rest."""
    analysis = copy_analysis(job.float_model)
    editor, stored = Editor(analysis.model), dict[str, ir.Value]()
    found = list(layers(analysis))
    recurrent = [(name, node) for node, name in operator_names(analysis.model) if is_recurrent(node)]
    left_out = job.left_out([*(layer.name for layer in found), *(name for name, _ in recurrent)])
    noise = [_store(editor, layer, bits, left_out, stored) for layer in found]
    noise += [_store_recurrent(editor, node, name, left_out) for name, node in recurrent]
    if not any(each.bits for each in noise):
        raise UsageError(
            "this model has no float32 weights of Conv, Gemm, MatMul, LSTM, GRU or RNN to store as integers"
        )
    remove_dead(analysis.model)
    return Quantized(analysis.model, tuple(noise))


def _store(
    editor: Editor, layer: Layer, bits: int, left_out: dict[str, str], stored: dict[str, ir.Value]
) -> LayerNoise:
    why = left_out.get(layer.name) or weight_obstacle(layer)
    operator = layer.node.op_type
    if why:
        return LayerNoise(layer.name, operator, 0, why=why)
    features = matrix_of(layer).shape[1]
    if has_packed_kernel(layer.node) and layer.readers == 1 and layer.form.stack is None and features >= BLOCK:
        store_packed(editor, layer, bits)
        return LayerNoise(layer.name, operator, bits)
    store_weights(editor, layer, round_nearest(layer, 8), stored)
    return LayerNoise(layer.name, operator, 8)


def _store_recurrent(editor: Editor, node: ir.Node, name: str, left_out: dict[str, str]) -> LayerNoise:
    """Both weights [directions, gates, features], with a scale per row of a gate for all directions."""
    values = node.inputs[1:3]
    if name in left_out:
        return LayerNoise(name, node.op_type, 0, why=left_out[name])
    if any(value is None or value.const_value is None or value.dtype != ir.DataType.FLOAT for value in values):
        return LayerNoise(name, node.op_type, 0, why="weights that are not constants of float32")
    for slot, value in enumerate(values, 1):
        assert value is not None
        array = read(value)
        scale = np.maximum(np.abs(array).max(axis=(0, 2)) / 127, TINY).astype(np.float32)
        integers = np.rint(array / scale[:, None]).astype(np.int8)
        made = editor.dequantized(value.name or name, integers, scale, _INT8, 1)
        editor.before(node, made)
        node.replace_input_with(slot, made.outputs[0])
    return LayerNoise(name, node.op_type, 8)
