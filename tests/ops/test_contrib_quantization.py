"""ONNX Runtime's quantized operators against the rule oracle."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.rule_oracle import Array, SampleDraw, number, oracle, sample, shapes_only

MICROSOFT = "com.microsoft"


def meaning(name: str, scale: float = 0.02, zero: int = 110) -> dict[str, Array]:
    """The scale and zero point of a whole tensor."""
    return {f"{name}_scale": number(scale), f"{name}_zero": number(zero, np.uint8)}


@sample("QLinearAdd", "QLinearMul", prunable="a[0] a[1] a[2] b[0] b[1] y[0] y[2]", fed="a b", domain=MICROSOFT)
def broadcast(d: SampleDraw) -> dict[str, Any]:
    n, c, h = d.sizes(3)
    return dict(a=d.uint8(n, c, h), **meaning("a"), b=d.uint8(c, h), **meaning("b", 0.03, 9), **meaning("y", 0.05))


@sample("QLinearWhere", prunable="c[1] a[0] a[1] b[1] y[0]", fed="c a b", domain=MICROSOFT)
def choice(d: SampleDraw) -> dict[str, Any]:
    n, c = d.sizes(2)
    a, b = dict(a=d.uint8(n, c), **meaning("a")), dict(b=d.uint8(n, c), **meaning("b"))
    return dict(c=d.bools(n, c), **a, **b, **meaning("y"))


@sample("QLinearSigmoid", "QLinearLeakyRelu", prunable="x[0] x[1] y[1]", domain=MICROSOFT)
def entry_by_entry(d: SampleDraw) -> dict[str, Any]:
    return dict(x=d.uint8(*d.sizes(2)), **meaning("x"), **meaning("y"))


@sample("QLinearConcat", prunable="a[0] a[1] b[1] y[1]", fed="a b", domain=MICROSOFT)
def side_by_side(d: SampleDraw) -> dict[str, Any]:
    n, c, e, h = d.sizes(4)
    parts = dict(a=d.uint8(n, c, h), **meaning("a"), b=d.uint8(n, e, h), **meaning("b", 0.04, 3))
    return dict(**meaning("y"), **parts, axis=1)


@sample("QLinearSoftmax", prunable="x[0] x[1] y[0]", domain=MICROSOFT)
def competing(d: SampleDraw) -> dict[str, Any]:
    return dict(x=d.uint8(*d.sizes(3)), **meaning("x"), **meaning("y", 1 / 256, 0), axis=2, opset=13)


@sample("QLinearGlobalAveragePool", prunable="x[0] x[1] y[1]", domain=MICROSOFT)
def whole(d: SampleDraw) -> dict[str, Any]:
    n, c = d.sizes(2)
    return dict(x=d.uint8(n, c, 4, 5), **meaning("x"), **meaning("y"))


@sample("QLinearGlobalAveragePool", prunable="x[0] x[3] y[3]", domain=MICROSOFT)
def whole_with_channels_last(d: SampleDraw) -> dict[str, Any]:
    n, c = d.sizes(2)
    return dict(x=d.uint8(n, 4, 5, c), **meaning("x"), **meaning("y"), channels_last=1)


@sample("QLinearAveragePool", prunable="x[0] x[1] y[1]", domain=MICROSOFT)
def window(d: SampleDraw) -> dict[str, Any]:
    n, c = d.sizes(2)
    return dict(x=d.uint8(n, c, 6, 5), **meaning("x"), **meaning("y"), kernel_shape=[2, 3], strides=[2, 1])


@sample("QLinearAveragePool", prunable="x[0] x[3] y[3]", domain=MICROSOFT)
def window_with_channels_last(d: SampleDraw) -> dict[str, Any]:
    n, c = d.sizes(2)
    return dict(x=d.uint8(n, 6, 5, c), **meaning("x"), **meaning("y"), kernel_shape=[2, 3], channels_last=1)


@sample("NhwcMaxPool", prunable="x[0] x[3] y[3]", domain=MICROSOFT)
def largest(d: SampleDraw) -> dict[str, Any]:
    n, c = d.sizes(2)
    return {"x": d.uint8(n, 6, 5, c), "kernel_shape": [2, 3], "strides": [2, 1]}


@sample("QLinearConv", prunable="x[0] x[3] w[0] w[1] w_scale[0] b[0] y[3]", domain=MICROSOFT)
def channels_last(d: SampleDraw) -> dict[str, Any]:
    n, c, o = d.sizes(3)
    w = {"w": d.int7(o, c, 3, 3), "w_scale": d.positive(o) / 64, "w_zero": np.zeros(o, np.int8)}
    x = dict(x=d.uint8(n, 6, 5, c), **meaning("x"))
    return dict(
        **x, **w, **meaning("y", 0.5), b=d.integers(500, o).astype(np.int32), channels_last=1, pads=[1, 1, 1, 1]
    )


@sample("QLinearConv", prunable="x[1] w[0] w_scale[0] y[1]", domain=MICROSOFT)
def depthwise(d: SampleDraw) -> dict[str, Any]:
    n, g = d.sizes(2)
    w = {"w": d.int7(g, 1, 3, 3), "w_scale": d.positive(g) / 64, "w_zero": np.zeros(g, np.int8)}
    return dict(x=d.uint8(n, g, 6, 5), **meaning("x"), **w, **meaning("y", 0.5), group=g)


@sample("QGemm", prunable="a[0] a[1] b[0] b[1] b_scale[0] b_zero[0] c[0] y[1]", domain=MICROSOFT)
def with_bias(d: SampleDraw) -> dict[str, Any]:
    m, k, n = d.sizes(3)
    b = {"b": d.int7(n, k), "b_scale": d.positive(n) / 64, "b_zero": np.zeros(n, np.int8)}
    c = d.integers(500, n).astype(np.int32)
    return dict(a=d.uint8(m, k), **meaning("a"), **b, c=c, **meaning("y", 0.5), transB=1)


@sample("QGemm", prunable="a[1] b[0] b[1] y[1]", domain=MICROSOFT)
def to_floats(d: SampleDraw) -> dict[str, Any]:
    m, k, n = d.sizes(3)
    return dict(a=d.uint8(m, k), **meaning("a"), b=d.uint8(k, n), **meaning("b"), c=None)


@sample("MatMulIntegerToFloat", prunable="a[1] a[2] b[0] b[1] b_scale[0] b_zero[0] c[0] y[2]", domain=MICROSOFT)
def back_to_floats(d: SampleDraw) -> dict[str, Any]:
    n, m, k, c = d.sizes(4)
    scales = {"a_scale": number(0.02), "b_scale": d.positive(c) / 64}
    zeros = {"a_zero": number(110, np.uint8), "b_zero": d.int8(c)}
    return dict(a=d.uint8(n, m, k), b=d.int7(k, c), **scales, **zeros, c=d.normal(c))


def _by_extremes(a: Array, b: Array, scale: Array, zero: Array, bias: Array) -> Array:
    low, high = min(a.min(), 0), max(a.max(), 0)
    step = np.float32((high - low) / 255)
    centre = np.clip(np.rint(-low / step), 0, 255)
    integers = np.clip(np.rint(a / step) + centre, 0, 255) - centre
    return (integers @ (b.astype(np.float32) - zero) * step * scale + bias).astype(np.float32)


@sample(
    "DynamicQuantizeMatMul",
    prunable="a[0] a[1] b[0] b[1] scale[0] zero[0] bias[0] y[1]",
    reference=_by_extremes,
    domain=MICROSOFT,
)
def from_floats(d: SampleDraw) -> dict[str, Any]:
    m, k, n = d.sizes(3)
    return {
        "a": d.normal(m, k),
        "b": d.int7(k, n),
        "scale": d.positive(n) / 64,
        "zero": d.int8(n),
        "bias": d.normal(n),
    }


@sample(
    "DynamicQuantizeLSTM",
    prunable="x[2] w[1] w[2] r[1] w_scale[1] y[3] h[2]",
    outputs="y h c",
    domain=MICROSOFT,
    reference=shapes_only,
)
def states(d: SampleDraw) -> dict[str, Any]:
    steps, n, i, h = d.sizes(4)
    weights = {
        "x": d.normal(steps, n, i),
        "w": d.int7(2, i, 4 * h),
        "r": d.int7(2, h, 4 * h),
        "b": d.normal(2, 8 * h),
    }
    scales = {"w_scale": d.positive(2, 4 * h) / 64, "w_zero": np.zeros((2, 4 * h), np.int8)}
    more = {"r_scale": d.positive(2) / 64, "r_zero": np.zeros(2, np.int8)}
    empty = {"lengths": None, "h0": None, "c0": None, "p": None}
    return dict(**weights, **empty, **scales, **more, hidden_size=h, direction="bidirectional")


test_rule = oracle(__name__)
