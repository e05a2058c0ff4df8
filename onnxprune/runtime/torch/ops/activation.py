"""Activation functions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (its usual name)

from onnxprune.runtime.torch.ops.base import TorchNode, torch_op

_SIMPLE: dict[str, Callable[[Tensor], Tensor]] = {
    "HardSwish": F.hardswish,
    "Mish": F.mish,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
    "Softsign": F.softsign,
    "Tanh": torch.tanh,
}


def _register() -> None:
    for name, function in _SIMPLE.items():
        torch_op(name)(lambda _, x, f=function: f(x))


_register()


@torch_op("LeakyRelu")
def leaky_relu(op: TorchNode, x: Tensor) -> Tensor:
    """Negative entries times alpha."""
    return F.leaky_relu(x, op.attr("alpha", 0.01))


@torch_op("Elu")
def elu(op: TorchNode, x: Tensor) -> Tensor:
    """Alpha (exp(x) - 1) below zero."""
    return F.elu(x, op.attr("alpha", 1.0))


@torch_op("Celu")
def celu(op: TorchNode, x: Tensor) -> Tensor:
    """Alpha (exp(x / alpha) - 1) below zero."""
    return F.celu(x, op.attr("alpha", 1.0))


@torch_op("Selu")
def selu(op: TorchNode, x: Tensor) -> Tensor:
    """Gamma times x, or alpha (exp(x) - 1) below zero."""
    alpha, gamma = op.attr("alpha", 1.6732632423543772), op.attr("gamma", 1.0507009873554805)
    return torch.where(x > 0, x, alpha * torch.expm1(torch.clamp(x, max=0))).mul(gamma)


@torch_op("ThresholdedRelu")
def thresholded_relu(op: TorchNode, x: Tensor) -> Tensor:
    """Zero up to alpha."""
    return F.threshold(x, op.attr("alpha", 1.0), 0.0)


@torch_op("HardSigmoid")
def hard_sigmoid(op: TorchNode, x: Tensor) -> Tensor:
    """Alpha x + beta, limited to [0, 1]."""
    return torch.clamp(op.attr("alpha", 0.2) * x + op.attr("beta", 0.5), 0, 1)


@torch_op("Gelu")
def gelu(op: TorchNode, x: Tensor) -> Tensor:
    """X times the normal distribution function, or its approximation by tanh."""
    return F.gelu(x, approximate=op.attr("approximate", "none"))


@torch_op("Swish")
def swish(op: TorchNode, x: Tensor) -> Tensor:
    """X sigmoid(alpha x)."""
    return x * torch.sigmoid(op.attr("alpha", 1.0) * x)


@torch_op("Shrink")
def shrink(op: TorchNode, x: Tensor) -> Tensor:
    """Zero within [-lambd, lambd], moved towards zero by `bias` outside."""
    bias, limit = op.attr("bias", 0.0), op.attr("lambd", 0.5)
    moved = torch.where(x > limit, x - bias, x + bias)
    return torch.where((x < -limit) | (x > limit), moved, torch.zeros_like(moved)).to(x.dtype)


@torch_op("PRelu")
def prelu(op: TorchNode, x: Tensor, slope: Tensor) -> Tensor:
    """Negative entries times a slope, which broadcasts (before opset 7: one per channel)."""
    if op.version < 7 and slope.numel() > 1:
        slope = slope.reshape(-1, *[1] * (x.ndim - 2))
    return torch.where(x < 0, x * slope, x)


@torch_op("Softmax")
def softmax(op: TorchNode, x: Tensor) -> Tensor:
    """exp(x) by its sum."""
    return _along(op, x, lambda matrix, axis: torch.softmax(matrix, axis))


@torch_op("LogSoftmax")
def log_softmax(op: TorchNode, x: Tensor) -> Tensor:
    """The logarithm of the same."""
    return _along(op, x, lambda matrix, axis: torch.log_softmax(matrix, axis))


@torch_op("Hardmax")
def hardmax(op: TorchNode, x: Tensor) -> Tensor:
    """One at the first maximum, else zero."""

    def first(matrix: Tensor, axis: int) -> Tensor:
        return torch.zeros_like(matrix).scatter(axis, matrix.argmax(axis, keepdim=True), 1)

    return _along(op, x, first)


def _along(op: TorchNode, x: Tensor, function: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Along one axis; before opset 13 along all from `axis` on."""
    if op.version >= 13:
        return function(x, op.attr("axis", -1))
    return function(x.flatten(op.attr("axis", 1) % max(x.ndim, 1)), -1).reshape(x.shape)
