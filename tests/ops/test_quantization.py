"""Quantization of the standard domain against the rule oracle, and quantized models from end to end."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.rule_oracle import Array, SampleDraw, number, oracle, sample


def scales(d: SampleDraw, *shape: int) -> Array:
    return d.positive(*shape) / 64


@sample("QuantizeLinear", prunable="x[0] x[1] x[2] y[1]", since=10)
def to_integers(d: SampleDraw) -> dict[str, Any]:
    return {"x": d.normal(*d.sizes(3)), "scale": number(0.02), "zero": number(120, np.uint8)}


@sample("QuantizeLinear", prunable="x[1] scale[0] zero[0] y[1]", since=13)
def to_integers_by_channel(d: SampleDraw) -> dict[str, Any]:
    n, c, h = d.sizes(3)
    return {"x": d.normal(n, c, h), "scale": scales(d, c), "zero": d.int8(c)}


@sample("QuantizeLinear", prunable="x[0] x[1] scale[0] scale[1] y[0] y[1]", since=21)
def to_integers_by_block(d: SampleDraw) -> dict[str, Any]:
    n, blocks = d.sizes(2)
    tables = {"scale": scales(d, n, blocks), "zero": d.int8(n, blocks)}
    return dict(x=d.normal(n, 4 * blocks), **tables, axis=1, block_size=4)


@sample("DequantizeLinear", prunable="x[0] x[1] x[2] y[1]", since=10)
def to_floats(d: SampleDraw) -> dict[str, Any]:
    return {"x": d.uint8(*d.sizes(3)), "scale": number(0.02), "zero": number(120, np.uint8)}


@sample("DequantizeLinear", prunable="x[0] scale[0] zero[0] y[0]", since=13)
def to_floats_by_channel(d: SampleDraw) -> dict[str, Any]:
    c, n, h = d.sizes(3)
    return {"x": d.int8(c, n, h), "scale": scales(d, c), "zero": d.int8(c), "axis": 0}


@sample("DequantizeLinear", prunable="x[0] scale[0] y[0]", since=13)
def bias_to_floats(d: SampleDraw) -> dict[str, Any]:
    (c,) = d.sizes(1)
    return {"x": d.integers(100, c).astype(np.int32), "scale": scales(d, c), "axis": 0}


@sample("DequantizeLinear", prunable="x[0] x[1] scale[0] scale[1] y[0] y[1]", since=21)
def to_floats_by_block(d: SampleDraw) -> dict[str, Any]:
    blocks, n = d.sizes(2)
    return {
        "x": d.int8(4 * blocks, n),
        "scale": scales(d, blocks, n),
        "zero": d.int8(blocks, n),
        "axis": 0,
        "block_size": 4,
    }


@sample("DequantizeLinear", prunable="x[1] scale[1] y[1]", since=21)
def with_a_last_block_that_is_not_full(d: SampleDraw) -> dict[str, Any]:
    blocks, n = d.sizes(2)
    return {
        "x": d.int8(4 * blocks - 1, n),
        "scale": scales(d, blocks, n),
        "zero": d.int8(blocks, n),
        "axis": 0,
        "block_size": 4,
    }


@sample("QuantizeLinear", prunable="x[1] scale[0] zero[0] y[1]", domain="com.microsoft")
def to_more_integers(d: SampleDraw) -> dict[str, Any]:
    n, c, h = d.sizes(3)
    return {"x": d.normal(n, c, h), "scale": scales(d, c), "zero": d.integers(9, c).astype(np.uint16), "axis": 1}


@sample("DequantizeLinear", prunable="x[1] scale[0] zero[0] y[1]", domain="com.microsoft")
def from_more_integers(d: SampleDraw) -> dict[str, Any]:
    n, c, h = d.sizes(3)
    zero = d.integers(9, c).astype(np.int16)
    return {"x": d.integers(999, n, c, h).astype(np.int16), "scale": scales(d, c), "zero": zero, "axis": 1}


def _dynamic(x: Array) -> tuple[Array, Array, Array]:
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = np.float32((high - low) / 255)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    return np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.uint8), scale, zero.astype(np.uint8)


@sample("DynamicQuantizeLinear", prunable="x[0] x[1] y[1]", outputs="y scale zero", reference=_dynamic, since=11)
def by_extremes(d: SampleDraw) -> dict[str, Any]:
    return {"x": d.normal(*d.sizes(2))}


def _quantized_conv(d: SampleDraw, c: int, w: Array) -> dict[str, Any]:
    (n,) = d.sizes(1)
    o = len(w)
    x = {"x": d.uint8(n, c, 6, 5), "x_scale": number(0.02), "x_zero": number(110, np.uint8)}
    y = {"y_scale": number(0.5), "y_zero": number(100, np.uint8)}
    return dict(**x, w=w, w_scale=scales(d, o), w_zero=np.zeros(o, np.int8), **y)


@sample("QLinearConv", prunable="x[0] x[1] w[0] w[1] w_scale[0] w_zero[0] b[0] y[1]", since=10)
def by_channel(d: SampleDraw) -> dict[str, Any]:
    c, o = d.sizes(2)
    b = d.integers(500, o).astype(np.int32)
    return dict(**_quantized_conv(d, c, d.int7(o, c, 3, 3)), b=b, pads=[1, 1, 1, 1])


@sample("QLinearConv", prunable="x[1] w[0] w_scale[0] y[1]", since=10)
def grouped(d: SampleDraw) -> dict[str, Any]:
    g, i, o = d.sizes(3)
    return dict(**_quantized_conv(d, g * i, d.int7(g * o, i, 2, 2)), group=g)


@sample("ConvInteger", prunable="x[0] x[1] w[0] w[1] y[1]", since=10)
def integers(d: SampleDraw) -> dict[str, Any]:
    n, c, o = d.sizes(3)
    zeros = {"x_zero": number(110, np.uint8), "w_zero": number(7, np.uint8)}
    return dict(x=d.uint8(n, c, 6, 5), w=d.uint8(o, c, 3, 2), **zeros)


@sample("MatMulInteger", prunable="a[0] a[1] a[2] b[0] b[1] b_zero[0] y[2]", since=10)
def per_column(d: SampleDraw) -> dict[str, Any]:
    n, m, k, c = d.sizes(4)
    return {"a": d.uint8(n, m, k), "b": d.int7(k, c), "a_zero": number(110, np.uint8), "b_zero": d.int8(c)}


@sample("MatMulInteger", prunable="a[0] a[1] a[2] b[0] b[1] b[2] y[1] y[2]", since=10, fed="a b")
def of_activations(d: SampleDraw) -> dict[str, Any]:
    n, m, k, c = d.sizes(4)
    zeros = {"a_zero": number(110, np.uint8), "b_zero": number(3, np.uint8)}
    return dict(a=d.uint8(n, m, k), b=d.uint8(n, k, c), **zeros)


@sample("QLinearMatMul", prunable="a[0] a[1] a[2] b[0] b[1] b_scale[0] b_zero[0] y[2]", since=10)
def rounded(d: SampleDraw) -> dict[str, Any]:
    n, m, k, c = d.sizes(4)
    a = {"a": d.uint8(n, m, k), "a_scale": number(0.02), "a_zero": number(110, np.uint8)}
    b = {"b": d.int7(k, c), "b_scale": scales(d, c), "b_zero": d.int8(c)}
    return dict(**a, **b, y_scale=number(0.5), y_zero=number(100, np.uint8))


test_rule = oracle(__name__)
