"""ONNX Runtime's fused operators (com.microsoft)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import erf, pi, sqrt

import numpy as np

from onnxprune.ops.base import Array
from onnxprune.ops.constants.base import KnownEntries, Site, Vector, constant, on_axis
from onnxprune.ops.constants.linear import Linear, conv, gemm, linear, linear_form, matmul

MICROSOFT = "com.microsoft"

ACTIVATIONS: dict[str, Callable[[Vector], Vector]] = {
    "": lambda x: x,
    "Relu": lambda x: np.maximum(x, 0),
    "Tanh": np.tanh,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def _gelu(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.vectorize(erf, otypes=[np.float64])(x / sqrt(2))))


def _tanh_gelu(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))))


@constant("Gelu", "BiasGelu", "FastGelu", "QuickGelu", domain=MICROSOFT)
def gelu(site: Site) -> KnownEntries | None:
    """The kinds of gelu, of the sum with a bias [C] where there is one."""
    x, bias = site.x[0], site.constant(1)
    if x is None or (site.has(1) and bias is None):
        return None
    total = x.values.astype(np.float64) + (0 if bias is None else bias)
    if site.node.op_type == "QuickGelu":
        values = total / (1 + np.exp(-site.attr("alpha", 1.702) * total))
    else:
        values = (_tanh_gelu if site.node.op_type == "FastGelu" else _gelu)(total)
    return KnownEntries(values.astype(site.dtypes[0]), np.broadcast_to(x.known, values.shape))


@linear("FusedConv", domain=MICROSOFT)
def fused_conv(site: Site) -> Linear | None:
    """Conv, before a fourth input is added and an activation applied: the bias can still take up a shift."""
    return conv(site)


@linear("FusedGemm", domain=MICROSOFT)
def fused_gemm(site: Site) -> Linear | None:
    """Gemm, before an activation."""
    return gemm(site)


@linear("FusedMatMul", domain=MICROSOFT)
def fused_matmul(site: Site) -> Linear | None:
    """A MatMul times `alpha`, of a weight that may be transposed."""
    turned = site.attr("transA", 0) or site.attr("transBatchA", 0) or site.attr("transBatchB", 0)
    form = None if turned else matmul(site)
    if form is None:
        return None
    weight = form.weight.swapaxes(1, 2) if site.attr("transB", 0) else form.weight
    size = weight.shape[2]
    shift = np.zeros(size), np.ones(size, np.bool_)
    return replace(form, weight=weight, shift=shift, scale=float(site.attr("alpha", 1.0)))


@constant("FusedConv", "FusedGemm", "FusedMatMul", domain=MICROSOFT)
def sums(site: Site) -> KnownEntries | None:
    """As the sum alone, then the activation."""
    form, activation = linear_form(site), ACTIVATIONS.get(str(site.attr("activation", "")))
    if form is None or activation is None or site.has(3):
        return None
    values, known = form.constants(site.x[0])
    return on_axis(activation(values), known, form.out, len(site.y[0]), site.dtypes[0])
