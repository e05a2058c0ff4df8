"""The same values, or the same bits, in another type."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from onnxprune.runtime.torch.ops.base import TORCH_TYPES, TorchNode, torch_op

# Types that are carried in wider ones: what a conversion to them means is left to ml_dtypes.
_CARRIED = {
    ir.DataType.FLOAT4E2M1.value: ml_dtypes.float4_e2m1fn,
    ir.DataType.INT4.value: ml_dtypes.int4,
    ir.DataType.UINT4.value: ml_dtypes.uint4,
    ir.DataType.INT2.value: ml_dtypes.int2,
    ir.DataType.UINT2.value: ml_dtypes.uint2,
}
_UNSIGNED = {
    ir.DataType.UINT16.value: 16,
    ir.DataType.UINT32.value: 32,
}


@torch_op("Cast")
def cast(op: TorchNode, x: Tensor) -> Tensor:
    """In another type."""
    return _cast(op, x, op.attr("to"))


@torch_op("CastLike")
def cast_like(op: TorchNode, x: Tensor, like: Tensor) -> Tensor:
    """In the type of another tensor."""
    code = op.type_of(1)
    return x.to(like.dtype) if code is None else _cast(op, x, code)


def _cast(op: TorchNode, x: Tensor, code: int) -> Tensor:
    dtype = op.dtype(code)
    if code in _CARRIED:
        exact = x.detach().cpu().double().numpy().astype(_CARRIED[code]).astype(np.float32)
        rounded = torch.from_numpy(exact).to(x.device)
        return (x + (rounded - x).detach()) if x.requires_grad and dtype.is_floating_point else rounded.to(dtype)
    if code in _UNSIGNED:
        return x.to(dtype) & ((1 << _UNSIGNED[code]) - 1)
    if dtype.itemsize == 1 and dtype.is_floating_point and x.is_floating_point():
        if dtype == torch.float8_e8m0fnu:
            return _power_of_two(x.float(), op.attr("round_mode", "up")).to(dtype)
        return _to_float8(x, dtype, bool(op.attr("saturate", 1)))
    return x.to(dtype)


def _power_of_two(x: Tensor, mode: str) -> Tensor:
    """Rounded to one, of those that float8e8m0 has."""
    mantissa, exponent = torch.frexp(x)  # x = mantissa * 2^exponent, the mantissa from 0.5 to 1
    least = {"up": 0.5, "nearest": 0.75, "down": 1.0}[mode]
    above = mantissa > least if mode == "up" else mantissa >= least
    power = torch.where(above, exponent, exponent - 1).masked_fill(x == 0, -127).clamp(-127, 127)
    return torch.where(x.isnan(), x, torch.ldexp(torch.ones_like(x), power))


def _to_float8(x: Tensor, dtype: torch.dtype, saturate: bool) -> Tensor:
    """Beyond the range: the largest value, or infinity where the type has one, else no number."""
    largest = torch.finfo(dtype).max
    if saturate:
        return x.float().clamp(-largest, largest).to(dtype)
    beyond = x.abs() > largest * (1 + 2**-4 / 1.75)  # what rounds to the value after the largest
    return torch.where(beyond & (dtype == torch.float8_e4m3fn), torch.nan, x.float()).to(dtype)


@torch_op("BitCast")
def bit_cast(op: TorchNode, x: Tensor) -> Tensor:
    """The bits read as another type."""
    code = op.attr("to")
    native = ir.DataType(code).numpy()
    given = op.type_of(0)
    array = x.detach().cpu().numpy() if x.dtype != torch.bfloat16 else x.detach().cpu().view(torch.int16).numpy()
    if given is not None and TORCH_TYPES[given] == torch.int64:
        array = array.astype(ir.DataType(given).numpy())
    read = array.view(native)
    if read.dtype.name == "bfloat16":
        return torch.from_numpy(read.view(np.int16).copy()).view(torch.bfloat16).to(x.device)
    wide = read.astype(np.int64) if read.dtype.kind == "u" and read.dtype.itemsize > 1 else read
    return torch.from_numpy(np.array(wide)).to(x.device)
