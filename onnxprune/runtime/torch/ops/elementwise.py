"""One value in, one value out: arithmetic, comparisons, logic, bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from onnxprune.runtime.torch.ops.base import TorchNode, torch_op

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseNot": torch.bitwise_not,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
}

_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "And": torch.logical_and,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Mul": torch.mul,
    "Or": torch.logical_or,
    "Sub": torch.sub,
    "Xor": torch.logical_xor,
}

_VARIADIC: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Max": torch.maximum,
    "Min": torch.minimum,
    "Sum": torch.add,
}


def _register() -> None:
    for name, unary in _UNARY.items():
        torch_op(name)(lambda _, x, f=unary: f(x))
    for name, binary in _BINARY.items():
        torch_op(name)(lambda op, a, b, f=binary: f(a, aligned(op, a, b)))
    for name, binary in _VARIADIC.items():
        torch_op(name)(lambda _, *inputs, f=binary: reduce(f, inputs))


def aligned(op: TorchNode, a: Tensor, b: Tensor) -> Tensor:
    """Before opset 7 `b` was laid along the axes of `a` from attribute `axis` on."""
    axis = op.attr("axis")
    if op.version >= 7 or not op.attr("broadcast", 0) or axis is None:
        return b
    axis += a.ndim if axis < 0 else 0
    return b.reshape(*b.shape, *[1] * (a.ndim - axis - b.ndim))


_register()


@torch_op("Mean")
def mean(_: TorchNode, *inputs: Tensor) -> Tensor:
    """The mean of the inputs, broadcast."""
    return reduce(torch.add, inputs) / len(inputs)


@torch_op("Div")
def div(op: TorchNode, a: Tensor, b: Tensor) -> Tensor:
    """Division; of integers, towards zero."""
    whole = not a.is_floating_point() and not a.is_complex()
    return torch.div(a, aligned(op, a, b), rounding_mode="trunc" if whole else None)


@torch_op("Pow")
def power(op: TorchNode, base: Tensor, exponent: Tensor) -> Tensor:
    """Power in the type of the base. One exponent for all is a number, not a weight: its gradient would be a NaN
    wherever the base is negative.
    """
    exponent = aligned(op, base, exponent)
    if exponent.numel() == 1:
        exponent = exponent.detach()
    if not base.is_floating_point() and (exponent.is_floating_point() or bool((exponent < 0).any())):
        return torch.pow(base.double(), exponent.double()).to(base.dtype)
    return torch.pow(base, exponent).to(base.dtype)


@torch_op("Mod")
def mod(op: TorchNode, a: Tensor, b: Tensor) -> Tensor:
    """The remainder, with the sign of the dividend (fmod=1) or of the divisor."""
    return torch.fmod(a, b) if op.attr("fmod", 0) else torch.remainder(a, b)


@torch_op("BitShift")
def bit_shift(op: TorchNode, a: Tensor, b: Tensor) -> Tensor:
    """Bits moved left or right."""
    return torch.bitwise_left_shift(a, b) if op.attr("direction") == "LEFT" else torch.bitwise_right_shift(a, b)


@torch_op("IsInf")
def is_inf(op: TorchNode, x: Tensor) -> Tensor:
    """Is it infinite, of a sign that counts?"""
    positive = torch.isposinf(x) if op.attr("detect_positive", 1) else torch.zeros_like(x, dtype=torch.bool)
    return positive | torch.isneginf(x) if op.attr("detect_negative", 1) else positive


@torch_op("Where")
def where(_: TorchNode, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`a` where the condition holds, else `b`."""
    return torch.where(condition, a, b)


@torch_op("Clip", stored=(1, 2))
def clip(op: TorchNode, x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    """Limited to [low, high]; the limits were attributes before opset 11."""
    lowest: Any = op.attr("min") if low is None else _number(low)
    highest: Any = op.attr("max") if high is None else _number(high)
    if isinstance(lowest, float) and isinstance(highest, float) and lowest < highest and x.is_floating_point():
        return F.hardtanh(x, lowest, highest)  # its gradient takes one pass
    if lowest is not None:
        x = torch.clamp(x, min=lowest)
    return x if highest is None else torch.clamp(x, max=highest)


def _number(limit: Any) -> Any:
    """Some files hold a limit as a list of one."""
    return limit[0] if isinstance(limit, list) else limit


@torch_op("Identity")
def identity(_: TorchNode, x: Any) -> Any:
    """The input, whatever it is."""
    return x


@torch_op("Dropout")
def dropout(op: TorchNode, x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None) -> Any:
    """Nothing in inference; with `training_mode` entries are dropped and the others scaled up."""
    rate = float(ratio) if ratio is not None else float(op.attr("ratio", 0.5))
    mask = torch.ones_like(x, dtype=torch.bool)
    if training is not None and bool(training) and rate > 0:
        mask = torch.rand_like(x) >= rate
        x = torch.where(mask, x / (1 - rate), torch.zeros_like(x)) if rate < 1 else torch.zeros_like(x)
    return x, mask
