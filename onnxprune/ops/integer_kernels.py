"""Which operators ONNX Runtime runs on integers, where they lie between DequantizeLinear and QuantizeLinear.

Its list is in onnxruntime/core/optimizer/qdq_transformer/selectors_actions/qdq_selector_action_transformer.cc.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxprune.ops.base import attribute, key_of

# The oldest opset whose operators on integers it makes: QLinearConv is of this one.
OLDEST_OPSET = 10
# What multiplies with weights. Only the first has to give integers, the others may give floats.
_WHOLE = {"Conv"}
_LAYERS = _WHOLE | {"Gemm", "MatMul"}
# What gives integers where all that it reads are integers. Of the first the grid stays that of their input.
_PASS_ON = {"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice"}
_CARRY = {"Add", "Mul", "AveragePool", "GlobalAveragePool", "Concat", "LeakyRelu", "Sigmoid"}
# Of these one integer operand is worth it that the other is quantized, too.
_MIX = {"Add", "Mul"}
# What reads one activation; further inputs are sizes and axes.
_FIRST_ONLY = _PASS_ON | {"AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid"}
_RECURRENT = {"LSTM", "GRU", "RNN"}


def _is(node: ir.Node, names: set[str]) -> bool:
    domain, name = key_of(node)
    return not domain and name in names


def integer_obstacle(node: ir.Node) -> str:
    """Why an operator that multiplies with weights cannot do so on integers; empty where it can."""
    if not _is(node, _LAYERS):
        return f"ONNX Runtime has no integer kernel for {node.op_type}"
    if attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0 or attribute(node, "transA", 0):
        return f"a {node.op_type} with alpha or beta, or of a transposed input"
    return ""


def gives_integers(node: ir.Node) -> bool:
    """Does it run on integers only where its result is quantized, too?"""
    return _is(node, _WHOLE)


def carries_integers(node: ir.Node) -> bool:
    """Does it run on integers, where all or one of what it reads are, see `mixes_operands`?"""
    return _is(node, _PASS_ON | _CARRY)


def keeps_grid(node: ir.Node) -> bool:
    """Are the integers that it gives some of those that it reads?"""
    return _is(node, _PASS_ON)


def mixes_operands(node: ir.Node) -> bool:
    """Does one integer operand make it worth it to quantize the other?"""
    return _is(node, _MIX)


def activation_slots(node: ir.Node) -> list[int]:
    """The slots of its activations: of most operators the first, other inputs are weights or sizes."""
    return list(range(len(node.inputs))) if _is(node, _CARRY - _FIRST_ONLY) else [0]


def is_merged_into_grid(node: ir.Node, read: ir.Value) -> bool:
    """Is it a Relu, or a Clip from 0 on, of `read`? Clipping to the range of an unsigned grid does the same."""
    if _is(node, {"Relu"}):
        return True
    if not _is(node, {"Clip"}) or node.inputs[0] is not read:
        return False
    low = node.inputs[1].const_value if len(node.inputs) > 1 and node.inputs[1] is not None else None
    return low is not None and low.size == 1 and float(low.numpy().reshape(())) == 0.0


def is_recurrent(node: ir.Node) -> bool:
    """Is it an LSTM, a GRU or an RNN?"""
    return _is(node, _RECURRENT)


def recurrent_obstacle(node: ir.Node) -> str:
    """Why a recurrent operator stays in float; empty for an LSTM that DynamicQuantizeLSTM can replace."""
    if not _is(node, {"LSTM"}):
        return f"ONNX Runtime has no integer kernel for {node.op_type}"
    if attribute(node, "layout", 0):
        return "batches in front, which DynamicQuantizeLSTM does not take"
    for value in node.inputs[1:3]:
        if value is None or value.const_value is None or value.const_value.dtype != ir.DataType.FLOAT:
            return "weights that are not constants of float32"
    return ""


def has_packed_kernel(node: ir.Node) -> bool:
    """Can MatMulNBits, which takes weights of 8 or 4 bits, replace it?"""
    return _is(node, _LAYERS - _WHOLE) and not integer_obstacle(node)
