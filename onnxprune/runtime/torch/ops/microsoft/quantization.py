"""ONNX Runtime's quantized operators (com.microsoft): dequantized, computed in floats, quantized again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from onnxprune.runtime.torch.ops.base import MICROSOFT, TorchNode, standard, torch_op

Part = Tensor | None


def _floats(op: TorchNode, x: Tensor, scale: Tensor, zero: Part, axis: int = -1) -> Tensor:
    found: Tensor = standard(op, "DequantizeLinear", x, scale, zero, axis=axis, block_size=0)
    return found


def _integers(op: TorchNode, y: Tensor, scale: Tensor, zero: Part) -> Tensor:
    found: Tensor = standard(op, "QuantizeLinear", y, scale, zero, axis=-1, block_size=0)
    return found


def _element_wise(name: str, function: Callable[[TorchNode, list[Tensor]], Tensor]) -> None:
    """Register an operator on inputs that each come before their scale and zero point, those of the output last."""

    def run(op: TorchNode, *inputs: Tensor) -> Tensor:
        *given, scale, zero = inputs
        floats = [_floats(op, given[i], given[i + 1], given[i + 2]) for i in range(0, len(given), 3)]
        return _integers(op, function(op, floats), scale, zero)

    torch_op(name, domain=MICROSOFT)(run)


_element_wise("QLinearAdd", lambda _, x: x[0] + x[1])
_element_wise("QLinearMul", lambda _, x: x[0] * x[1])
_element_wise("QLinearSigmoid", lambda _, x: torch.sigmoid(x[0]))
_element_wise("QLinearLeakyRelu", lambda op, x: standard(op, "LeakyRelu", x[0]))
_element_wise("QLinearSoftmax", lambda op, x: _softmax(op, x[0]))
_element_wise("QLinearGlobalAveragePool", lambda op, x: _channels_first(op, "GlobalAveragePool", x[0]))
_element_wise("QLinearAveragePool", lambda op, x: _channels_first(op, "AveragePool", x[0]))


def _softmax(op: TorchNode, x: Tensor) -> Tensor:
    axis = op.attr("axis", -1) % x.ndim
    if op.attr("opset", 13) >= 13:
        return torch.softmax(x, axis)
    return torch.softmax(x.flatten(axis), -1).reshape(x.shape)


def _channels_first(op: TorchNode, name: str, x: Tensor) -> Tensor:
    if not op.attr("channels_last", 0):
        found: Tensor = standard(op, name, x)
        return found
    moved: Tensor = standard(op, name, x.movedim(-1, 1))
    return moved.movedim(1, -1)


@torch_op("NhwcMaxPool", domain=MICROSOFT)
def max_pool_with_channels_last(op: TorchNode, x: Tensor) -> Tensor:
    """MaxPool of [N, ..., C]."""
    y: Tensor = standard(op, "MaxPool", x.movedim(-1, 1))
    return y.movedim(1, -1)


@torch_op("QLinearWhere", domain=MICROSOFT)
def where(
    op: TorchNode,
    condition: Tensor,
    a: Tensor,
    a_scale: Tensor,
    a_zero: Part,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Part,
    scale: Tensor,
    zero: Part,
) -> Tensor:
    """`a` where the condition holds, else `b`."""
    y = torch.where(condition, _floats(op, a, a_scale, a_zero), _floats(op, b, b_scale, b_zero))
    return _integers(op, y, scale, zero)


@torch_op("QLinearConcat", domain=MICROSOFT)
def concat(op: TorchNode, scale: Tensor, zero: Part, *parts: Any) -> Tensor:
    """One after the other, each before its scale and zero point."""
    floats = [_floats(op, *parts[i : i + 3]) for i in range(0, len(parts), 3)]
    return _integers(op, torch.cat(floats, op.attr("axis")), scale, zero)


@torch_op("QLinearConv", domain=MICROSOFT)
def convolution(op: TorchNode, x: Tensor, *others: Part) -> Tensor:
    """As in the standard, also with the channels last."""
    last = op.attr("channels_last", 0)
    y: Tensor = standard(op, "QLinearConv", x.movedim(-1, 1) if last else x, *others)
    return y.movedim(1, -1) if last else y


@torch_op("QGemm", domain=MICROSOFT)
def gemm(
    op: TorchNode,
    a: Tensor,
    a_scale: Tensor,
    a_zero: Part,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Part,
    c: Part = None,
    scale: Part = None,
    zero: Part = None,
) -> Tensor:
    """Alpha a b + c; c counts in steps of both scales. Floats where the output has no scale."""
    axis = 0 if op.attr("transB", 0) else 1
    left, right = _floats(op, a, a_scale, a_zero), _floats(op, b, b_scale, b_zero, axis)
    y = (left.T if op.attr("transA", 0) else left) @ (right.T if op.attr("transB", 0) else right)
    y = y if c is None else y + c * (a_scale * b_scale)
    y = y * op.attr("alpha", 1.0)
    return y if scale is None else _integers(op, y, scale, zero)


@torch_op("MatMulIntegerToFloat", domain=MICROSOFT)
def matmul_integer_to_float(
    op: TorchNode,
    a: Tensor,
    b: Tensor,
    a_scale: Tensor,
    b_scale: Tensor,
    a_zero: Part = None,
    b_zero: Part = None,
    bias: Part = None,
) -> Tensor:
    """The product of what the integers represent."""
    y = _floats(op, a, a_scale, a_zero) @ _floats(op, b, b_scale, b_zero)
    return y if bias is None else y + bias


@torch_op("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_quantize_matmul(
    op: TorchNode, a: Tensor, b: Tensor, b_scale: Tensor, b_zero: Part = None, bias: Part = None
) -> Tensor:
    """The same of floats that are quantized first."""
    y = _floats(op, *standard(op, "DynamicQuantizeLinear", a)) @ _floats(op, b, b_scale, b_zero)
    return y if bias is None else y + bias


@torch_op("DynamicQuantizeLSTM", domain=MICROSOFT)
def dynamic_quantize_lstm(
    op: TorchNode,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    bias: Part,
    lengths: Part,
    h: Part,
    c: Part,
    peepholes: Part,
    w_scale: Tensor,
    w_zero: Tensor,
    r_scale: Tensor,
    r_zero: Tensor,
) -> Any:
    """LSTM with weights [directions, inputs, 4 * size] of integers; its inputs are not rounded here."""
    weights = [
        (part.to(scale.dtype) - _rows(zero).to(scale.dtype)) * _rows(scale)
        for part, scale, zero in ((w, w_scale, w_zero), (r, r_scale, r_zero))
    ]
    w, r = (part.transpose(1, 2) for part in weights)
    return standard(op, "LSTM", x, w, r, bias, lengths, h, c, peepholes)


def _rows(part: Tensor) -> Tensor:
    """[directions] or [directions, columns] for [directions, rows, columns]."""
    return part.reshape(-1, 1, 1) if part.ndim == 1 else part.unsqueeze(1)


@torch_op("MatMulNBits", domain=MICROSOFT)
def matmul_of_blocks(
    op: TorchNode,
    x: Tensor,
    packed: Tensor,
    scales: Tensor,
    zeros: Part = None,
    order: Part = None,
    bias: Part = None,
) -> Tensor:
    """By a matrix [N, K] whose rows are packed in blocks, each with a scale and a zero point."""
    if order is not None:
        raise op.refuse("a reordered weight (g_idx) is not supported")
    rows, columns, bits = op.attr("N"), op.attr("K"), op.attr("bits", 4)
    codes = _unpacked(packed, bits).reshape(rows, -1, op.attr("block_size"))
    blocks = codes.shape[1]
    weight = codes.to(scales.dtype) - _zero_points(zeros, rows, blocks, bits).to(scales.dtype)
    weight = (weight * scales.reshape(rows, blocks, 1)).flatten(1)[:, :columns]
    y = x @ weight.to(x.dtype).T
    return y if bias is None else y + bias


def _zero_points(zeros: Part, rows: int, blocks: int, bits: int) -> Tensor:
    """[rows, blocks, 1]; packed along the blocks, or floats as they are."""
    if zeros is None:
        return torch.tensor(1 << (bits - 1))
    if zeros.is_floating_point():
        return zeros.reshape(rows, blocks, 1)
    return _unpacked(zeros.reshape(rows, -1), bits)[:, :blocks].unsqueeze(-1)


def _unpacked(packed: Tensor, bits: int) -> Tensor:
    """Whole numbers of 2, 4 or 8 bits out of bytes, the lowest bits first."""
    shifts = torch.arange(0, 8, bits, device=packed.device)
    codes = (packed.to(torch.int32).unsqueeze(-1) >> shifts) & ((1 << bits) - 1)
    return codes.flatten(-2)


@torch_op("GatherBlockQuantized", domain=MICROSOFT)
def gather_of_blocks(op: TorchNode, data: Tensor, index: Tensor, scales: Tensor, zeros: Part = None) -> Tensor:
    """Rows of a table whose entries have a scale and a zero point per block."""
    bits = op.attr("bits", 4)
    axis = op.attr("quantize_axis", 1) % data.ndim
    if data.dtype == torch.uint8 and data.shape[-1] * (8 // bits) >= scales.shape[-1] * op.attr("block_size", 128):
        data = _unpacked(data, bits)
        zeros = None if zeros is None else _unpacked(zeros, bits)[..., : scales.shape[-1]]
        shift = torch.tensor(1 << (bits - 1)) if zeros is None else zeros
    else:
        shift = torch.tensor(0) if zeros is None else zeros
    spread = scales.repeat_interleave(op.attr("block_size", 128), axis).narrow(axis, 0, data.shape[axis])
    if shift.ndim:
        shift = shift.repeat_interleave(op.attr("block_size", 128), axis).narrow(axis, 0, data.shape[axis])
    table = (data.to(scales.dtype) - shift.to(scales.dtype)) * spread
    found: Tensor = standard(op, "Gather", table, index, axis=op.attr("gather_axis", 0))
    return found
