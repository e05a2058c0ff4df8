"""Which weight axes make units and which read them, operator by operator."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune.analysis.producers import producing
from onnxprune.pipeline.run import inspect
from tests.conftest import Build

# The graph, and the axes of its weights that make something.
CASES = {
    "matmul": (
        """
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8] b, float[8, 3] v>
        { h = MatMul(x, w)  k = Add(h, b)  y = MatMul(k, v) }
        """,
        {("w", 1), ("b", 0), ("v", 1)},
    ),
    "gemm, transposed": (
        """
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[8, 5] w, float[8] b, float[8, 3] v>
        { h = Gemm<transB = 1>(x, w, b)  y = Gemm(h, v) }
        """,
        {("w", 0), ("b", 0), ("v", 1)},
    ),
    "square on a residual stream": (
        """
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] a, float[8, 8] b, float[8, 3] c>
        { h = MatMul(x, a)  k = MatMul(h, b)  s = Add(h, k)  y = MatMul(s, c) }
        """,
        {("a", 1), ("b", 1), ("c", 1)},
    ),
    "weight behind a transpose": (
        """
        net (float[batch, 5] x, float[3, batch] z) => (float[batch, 3] y)
        <float[8, 5] w, float[8, 3] v>
        { wt = Transpose(w)  h = MatMul(x, wt)  y = MatMul(h, v) }
        """,
        {("w", 0), ("v", 1)},
    ),
    "convolution": (
        """
        net (float[batch, 3, 6, 6] x) => (float[batch, 4, 6, 6] y)
        <float[8, 3, 3, 3] w, float[8] s, float[8] t, float[8] m, float[8] v = {1, 1, 1, 1, 1, 1, 1, 1},
         float[4, 8, 1, 1] o>
        { h = Conv<pads = [1, 1, 1, 1]>(x, w)  n = BatchNormalization(h, s, t, m, v)  y = Conv(n, o) }
        """,
        {("w", 0), ("s", 0), ("t", 0), ("m", 0), ("v", 0), ("o", 0)},
    ),
    "grouped and depthwise": (
        """
        net (float[batch, 6, 5, 5] x) => (float[batch, 4, 5, 5] y)
        <float[12, 6, 1, 1] a, float[8, 3, 1, 1] b, float[8, 1, 1, 1] c, float[4, 8, 1, 1] d>
        { h = Conv(x, a)  g = Conv<group = 4>(h, b)  k = Conv<group = 8>(g, c)  y = Conv(k, d) }
        """,
        {("a", 0), ("b", 0), ("c", 0), ("d", 0)},
    ),
    "transposed convolution": (
        """
        net (float[batch, 6, 5, 5] x) => (float[batch, 4, 5, 5] y)
        <float[6, 8, 1, 1] a, float[8, 4, 1, 1] b>
        { h = ConvTranspose(x, a)  y = ConvTranspose(h, b) }
        """,
        {("a", 1), ("b", 1)},
    ),
    "recurrence": (
        """
        net (float[5, batch, 3] x) => (float[5, batch, 2] y)
        <float[1, 32, 3] w, float[1, 32, 8] r, float[1, 64] b, float[8, 2] v, int64[1] one = {1}>
        { h = LSTM<hidden_size = 8>(x, w, r, b)  s = Squeeze(h, one)  y = MatMul(s, v) }
        """,
        {("w", 1), ("r", 1), ("b", 1), ("v", 1)},
    ),
    "tied embedding": (
        """
        net (int64[batch, 7] x) => (float[batch, 7, 11] y)
        <float[11, 8] table>
        { h = Gather(table, x)  r = Relu(h)  t = Transpose(table)  y = MatMul(r, t) }
        """,
        {("table", 1), ("table", 0)},
    ),
}


@pytest.mark.parametrize(("graph", "expected"), CASES.values(), ids=CASES)
def test_axes_that_come_out_of_an_operator(build: Build, graph: str, expected: set[tuple[str, int]]) -> None:
    analysis = inspect(build(graph))
    weights = [
        name
        for name, value in analysis.model.graph.initializers.items()
        if value.const_value.dtype == onnx.TensorProto.FLOAT
    ]
    found = {(name, axis) for name, axis in producing(analysis) if analysis.shapes.shapes[name][axis] > 1}
    assert {(name, axis) for name, axis in found if name in weights} == expected


def test_quantized_weight_is_seen_through_its_dequantization(build: Build) -> None:
    path = build(
        """
        net (float[batch, 5] x) => (float[batch, 3] y)
        <int8[5, 8] q, float[8] scale, int8[8] zero, float[8, 3] v>
        { w = DequantizeLinear<axis = 1>(q, scale, zero)  h = MatMul(x, w)  y = MatMul(h, v) }
        """,
        q=np.arange(40).reshape(5, 8),
        zero=np.zeros(8),
        scale=np.ones(8),
    )
    assert ("q", 1) in producing(inspect(path))
    assert ("q", 0) not in producing(inspect(path))


def test_operator_without_a_rule_says_nothing(build: Build) -> None:
    path = build(
        """
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8, 3] v, float[3] s>
        { h = MatMul(x, w)  k = MatMul(h, v)  y = com.example.Odd(k, s) }
        """,
        opsets={"com.example": 1},
    )
    assert producing(inspect(path)) == {("w", 1), ("v", 1)}
