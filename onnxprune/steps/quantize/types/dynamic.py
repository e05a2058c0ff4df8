"""Weights as integers of 8 bits; activations become integers as the model runs, by the extremes of each tensor."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxprune.analysis.copy import copy_analysis
from onnxprune.analysis.layers import Layer, bias_of, layers
from onnxprune.errors import UsageError
from onnxprune.model.graph import remove_dead
from onnxprune.ops.integer_kernels import has_packed_kernel
from onnxprune.steps.quantize.base import Quantized, QuantizeJob, quantized_type
from onnxprune.steps.quantize.fit import LayerNoise, round_nearest
from onnxprune.steps.quantize.insert import Editor
from onnxprune.steps.quantize.placement import weight_obstacle
from onnxprune.steps.quantize.recurrent import quantize_recurrent, recurrent_names


@quantized_type("int8-dynamic")
def int8_dynamic(job: QuantizeJob) -> Quantized:
    """Weights in 8 bits, activations measured in every run: no data is needed; Gemm, MatMul and LSTM only."""
    analysis = copy_analysis(job.float_model)
    editor, rounded = Editor(analysis.model), dict[str, list[ir.Value]]()
    found = list(layers(analysis))
    left_out = job.left_out([*(layer.name for layer in found), *recurrent_names(analysis.model)])
    noise = []
    for layer in found:
        why = left_out.get(layer.name) or weight_obstacle(layer)
        if not why and not (has_packed_kernel(layer.node) and layer.form.stack is None):
            why = f"{layer.node.op_type} with inputs measured in every run is slower than in float"
        noise.append(LayerNoise(layer.name, layer.node.op_type, 0 if why else job.weight_bits, why=why))
        if not why:
            _replace(editor, layer, job.weight_bits, rounded)
    noise += quantize_recurrent(editor, job.weight_bits, left_out)
    if not any(each.bits for each in noise):
        raise UsageError("nothing here can be quantized as it runs: no Gemm or MatMul with weights, and no LSTM")
    remove_dead(analysis.model)
    choices = {"weight_bits": job.weight_bits, "processor": job.processor.name}
    return Quantized(analysis.model, tuple(noise), (), choices)


def _replace(editor: Editor, layer: Layer, bits: int, rounded: dict[str, list[ir.Value]]) -> None:
    """A product of integers and its scales, in the form in which ONNX Runtime makes one operator of it."""
    node, weights = layer.node, round_nearest(layer, bits)
    x, name = node.inputs[0], layer.node.name or layer.name
    assert x is not None
    if layer.x not in rounded:
        down = ir.node("DynamicQuantizeLinear", [x], num_outputs=3, name=editor.name(f"{layer.x}/quantize"))
        for output, word in zip(down.outputs, ("integers", "scale", "zero"), strict=True):
            output.name = editor.name(f"{layer.x}/{word}")
        editor.before(node, down)
        rounded[layer.x] = list(down.outputs)
    integers, scale, zero = rounded[layer.x]
    matrix = editor.constant(f"{layer.weight}/integers", weights.integers[0].astype(np.int8))
    own = editor.constant(f"{layer.weight}/scale", weights.scales[0].astype(np.float32))
    none = editor.constant(f"{layer.weight}/zero", np.zeros(weights.scales.shape[1], np.int8))
    shape = node.outputs[0].shape
    product = editor.node("MatMulInteger", [integers, matrix, zero, none], f"{name}/product", ir.DataType.INT32, shape)
    wide = editor.node("Cast", product.outputs, f"{name}/float", shape=shape, attributes={"to": ir.DataType.FLOAT})
    unit = editor.node("Mul", [scale, own], f"{name}/unit")
    last = editor.node("Mul", [wide.outputs[0], unit.outputs[0]], f"{name}/scaled", shape=shape)
    editor.before(node, product, wide, unit)
    bias = bias_of(layer, len(weights.scales[0])) if layer.form.bias is not None else np.zeros(1)
    if bias.any():
        editor.before(node, last)
        held = editor.constant(f"{layer.weight}/bias", bias.astype(np.float32))
        last = editor.node("Add", [last.outputs[0], held], f"{name}/shifted", shape=shape)
    editor.swap(node, last)
