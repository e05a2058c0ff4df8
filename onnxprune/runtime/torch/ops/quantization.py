"""Quantization, with gradients that pass straight through the rounding (Bengio, Léonard and Courville, 2013).

Torch has no gradient for integers. So where one is asked for, quantized values are carried as floats that hold whole
numbers; everything here takes both. What lies beyond the range of the type, by more than rounding takes back, has no
gradient.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from onnxprune.runtime.torch.ops.base import (
    MICROSOFT,
    TORCH_TYPES,
    TorchNode,
    auto_pads,
    per_channel,
    torch_op,
    torch_pads,
)

_UINT8, _INT32 = ir.DataType.UINT8.value, ir.DataType.INT32.value
_CODES = {torch.uint8: _UINT8, torch.int8: ir.DataType.INT8.value, torch.int16: ir.DataType.INT16.value}


def quantized(op: TorchNode, x: Tensor, scale: Tensor, zero: Tensor | None, code: int) -> Tensor:
    """round(x / scale) + zero, in the range of the ONNX type `code`; as floats where a gradient is recorded."""
    dtype = ir.DataType(code)
    ratio = x / scale
    if dtype.is_floating_point():
        ratio = ratio if zero is None else ratio + zero.to(ratio.dtype)
        return _rounded_float(ratio, dtype, bool(op.attr("saturate", 1)))
    shift = 0.0 if zero is None else zero.to(ratio.dtype)
    low, high = _range(dtype)
    exact = torch.clamp(torch.round(ratio.detach()) + shift, low, high)
    if torch.is_grad_enabled() and ratio.requires_grad:
        passed = torch.clamp(ratio + shift, low - 0.5, high + 0.5)
        return exact + (passed - passed.detach())
    return exact.to(TORCH_TYPES[code])


def _range(dtype: ir.DataType) -> tuple[int, int]:
    if dtype.is_signed():
        return -(1 << (dtype.bitwidth - 1)), (1 << (dtype.bitwidth - 1)) - 1
    return 0, (1 << dtype.bitwidth) - 1


def _rounded_float(x: Tensor, dtype: ir.DataType, saturate: bool) -> Tensor:
    if dtype == ir.DataType.FLOAT4E2M1:
        steps = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], device=x.device)
        grid = torch.cat([-steps.flip(0), steps])
        nearest = grid[(x.detach().float().unsqueeze(-1) - grid).abs().argmin(-1)]
        return x + (nearest - x).detach()
    target = TORCH_TYPES[dtype.value]
    largest = torch.finfo(target).max
    return (x.float().clamp(-largest, largest) if saturate else x).to(target)


def dequantized(x: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    """(x - zero) * scale, in the type of the scale."""
    x = x.to(scale.dtype)
    return (x if zero is None else x - zero.to(scale.dtype)) * scale


def _spread(op: TorchNode, part: Tensor | None, x: Tensor) -> Tensor | None:
    """A scale or zero point for all of x: one, one per entry of `axis`, or one per block along it."""
    if part is None or part.numel() == 1:
        return None if part is None else part.reshape(())
    axis = op.attr("axis", 1) % x.ndim
    if part.ndim == 1 and not op.attr("block_size", 0):
        return per_channel(part, x.ndim, axis)
    block = op.attr("block_size", 0) or -(-x.shape[axis] // part.shape[axis])
    return part.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])


def _code(op: TorchNode, position: int, zero: Tensor | None) -> int:
    """The quantized type: as stated, as the zero point has it, else uint8."""
    stated: int | None = op.attr("output_dtype") or op.type_of(position)
    if stated is not None:
        return stated
    return _UINT8 if zero is None else _CODES.get(zero.dtype, _INT32)


@torch_op("QuantizeLinear")
@torch_op("QuantizeLinear", domain=MICROSOFT)
def quantize_linear(op: TorchNode, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """To integers (or small floats)."""
    spread = _spread(op, scale, x)
    assert spread is not None
    precision = op.attr("precision", 0)
    x, spread = (x, spread) if not precision else (x.to(op.dtype(precision)), spread.to(op.dtype(precision)))
    return quantized(op, x.to(spread.dtype), spread, _spread(op, zero, x), _code(op, 2, zero))


@torch_op("DequantizeLinear")
@torch_op("DequantizeLinear", domain=MICROSOFT)
def dequantize_linear(op: TorchNode, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """Back to floats."""
    spread = _spread(op, scale, x)
    assert spread is not None
    stated = op.attr("output_dtype", 0)
    return dequantized(x, spread if not stated else spread.to(op.dtype(stated)), _spread(op, zero, x))


@torch_op("DynamicQuantizeLinear")
def dynamic_quantize_linear(op: TorchNode, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """To uint8, by a scale and zero point from the extremes of the tensor."""
    low, high = x.detach().amin().clamp(max=0), x.detach().amax().clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = torch.round(torch.clamp(-low / scale, 0, 255))
    return quantized(op, x, scale, zero, _UINT8), scale, zero.to(torch.uint8)


def _whole(x: Tensor, zero: Tensor | None, axis: int | None = None) -> Tensor:
    """Integers without their zero point, in doubles: their products and sums are exact there, and have gradients."""
    x = x.double()
    if zero is None:
        return x
    if zero.numel() == 1:
        return x - zero.double().reshape(())
    return x - (zero.double() if axis is None else per_channel(zero.double(), x.ndim, axis))


def _as_integers(x: Tensor) -> Tensor:
    return x if torch.is_grad_enabled() and x.requires_grad else x.to(torch.int32)


@torch_op("MatMulInteger")
def matmul_integer(
    _: TorchNode, a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None
) -> Tensor:
    """The product of integers; a zero point is one, or one per row of a and per column of b."""
    if a_zero is not None and a_zero.ndim == 1 and a_zero.numel() > 1:
        a_zero = a_zero.unsqueeze(-1)
    return _as_integers(_whole(a, a_zero) @ _whole(b, b_zero))


@torch_op("QLinearMatMul")
def quantized_matmul(
    op: TorchNode,
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
) -> Tensor:
    """MatMul of what the integers represent, quantized again."""
    a_zero, a_scale = (x.unsqueeze(-1) if x.ndim == 1 and x.numel() > 1 else x for x in (a_zero, a_scale))
    product = (_whole(a, a_zero) @ _whole(b, b_zero)) * (a_scale.double() * b_scale.double())
    return quantized(op, product, y_scale.double(), y_zero, _code(op, 7, y_zero))


def _convolved(op: TorchNode, x: Tensor, w: Tensor) -> Tensor:
    count = x.ndim - 2
    strides, dilations = op.attr("strides") or [1] * count, op.attr("dilations") or [1] * count
    x = F.pad(x, torch_pads(auto_pads(op, x.shape[2:], w.shape[2:], strides, dilations)))
    convolution: Any = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[count]
    y: Tensor = convolution(x, w, None, strides, 0, dilations, op.attr("group", 1))
    return y


@torch_op("ConvInteger")
def convolution_of_integers(
    op: TorchNode, x: Tensor, w: Tensor, x_zero: Tensor | None = None, w_zero: Tensor | None = None
) -> Tensor:
    """The convolution of integers; pads count as the zero point."""
    return _as_integers(_convolved(op, _whole(x, x_zero), _whole(w, w_zero, 0)))


@torch_op("QLinearConv")
def quantized_convolution(
    op: TorchNode,
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    w: Tensor,
    w_scale: Tensor,
    w_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """Conv of what the integers represent, quantized again; the bias counts in steps of both scales."""
    y = _convolved(op, _whole(x, x_zero), _whole(w, w_zero, 0))
    y = y if bias is None else y + per_channel(bias.double(), y.ndim)
    steps = x_scale.double() * w_scale.double()
    y = y * (steps if steps.numel() == 1 else per_channel(steps, y.ndim))
    return quantized(op, y, y_scale.double(), y_zero, _code(op, 7, y_zero))
