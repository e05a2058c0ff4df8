"""Operators of integers as matrix products, against what ONNX Runtime computes: equal to half a step of the result.

In seven bits, since sums of products of bytes overflow on machines without VNNI.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxprune.analysis.layers import Layer, bias_of, layers, matrix_of
from onnxprune.passes.write_back import set_bias, set_matrix
from onnxprune.pipeline.run import inspect
from onnxprune.runtime.stepper import Stepper
from tests.conftest import Build

RNG = np.random.default_rng(0)
STEP = 0.25
SCALES = "float xs = {0.05}, uint8 xz = {128}, float ys = {0.25}"
# A product [n, 6] -> [n, 4], or of images with six channels; integers are dequantized behind it.
FORMS = {
    "qlinear conv": """
        net (float[n, 6, 5, 5] x) => (float[n, 4, 5, 5] y)
        <SCALES, uint8 yz = {100}, int8[4, 6, 3, 3] w, float[4] ws = {0.01, 0.02, 0.03, 0.01}, int8[4] wz, int32[4] b>
        { q = QuantizeLinear(x, xs, xz)  p = QLinearConv<pads = [1, 1, 1, 1]>(q, xs, xz, w, ws, wz, ys, yz, b)
          y = DequantizeLinear(p, ys, yz) }
    """,
    "rectified qlinear conv without bias": """
        net (float[n, 6, 5, 5] x) => (float[n, 4, 4, 4] y)
        <SCALES, uint8 yz = {0}, uint8[4, 3, 2, 2] w, float ws = {0.02}, uint8 wz = {64}>
        { q = QuantizeLinear(x, xs, xz)  p = QLinearConv<group = 2>(q, xs, xz, w, ws, wz, ys, yz)
          y = DequantizeLinear(p, ys, yz) }
    """,
    "qlinear conv, channels last": """
        net (float[n, 5, 5, 6] x) => (float[n, 5, 5, 4] y)
        <SCALES, uint8 yz = {100}, int8[4, 6, 3, 3] w, float ws = {0.02}, int8 wz, int32[4] b>
        { q = QuantizeLinear(x, xs, xz)
          p = com.microsoft.QLinearConv<channels_last = 1, pads = [1, 1, 1, 1]>(q, xs, xz, w, ws, wz, ys, yz, b)
          y = DequantizeLinear(p, ys, yz) }
    """,
    "qlinear matmul": """
        net (float[n, 6] x) => (float[n, 4] y)
        <SCALES, uint8 yz = {100}, int8[6, 4] w, float[4] ws = {0.01, 0.02, 0.03, 0.01}, int8[4] wz>
        { q = QuantizeLinear(x, xs, xz)  p = QLinearMatMul(q, xs, xz, w, ws, wz, ys, yz)
          y = DequantizeLinear(p, ys, yz) }
    """,
    "qgemm": """
        net (float[n, 6] x) => (float[n, 4] y)
        <SCALES, uint8 yz = {100}, int8[4, 6] w, float[4] ws = {0.01, 0.02, 0.03, 0.01}, int8[4] wz, int32[4] b>
        { q = QuantizeLinear(x, xs, xz)  p = com.microsoft.QGemm<transB = 1>(q, xs, xz, w, ws, wz, b, ys, yz)
          y = DequantizeLinear(p, ys, yz) }
    """,
    "matmul n bits": """
        net (float[n, 24] x) => (float[n, 4] y)
        <uint8[4, 2, 8] w, float[8] ws = {0.1, 0.2, 0.3, 0.1, 0.2, 0.2, 0.1, 0.3}>
        { y = com.microsoft.MatMulNBits<K = 24, N = 4, bits = 4, block_size = 16>(x, w, ws) }
    """,
    "dynamic": """
        net (float[n, 6] x) => (float[n, 4] y)
        <int8[6, 4] w, float[4] ws = {0.01, 0.02, 0.03, 0.01}, int8[4] wz, float[4] b>
        { y = com.microsoft.DynamicQuantizeMatMul(x, w, ws, wz, b) }
    """,
    "matmul integer": """
        net (float[n, 5, 6] x) => (float[n, 5, 4] y)
        <int8[6, 4] w, float[4] ws = {0.01, 0.02, 0.03, 0.01}, int8[4] wz>
        { q, s, z = DynamicQuantizeLinear(x)  p = MatMulInteger(q, w, z, wz)  f = Cast<to = 1>(p)
          t = Mul(s, ws)  y = Mul(f, t) }
    """,
    "conv integer and a bias": """
        net (float[n, 6, 5, 5] x) => (float[n, 4, 5, 5] y)
        <uint8[4, 6, 3, 3] w, float ws = {0.02}, uint8 wz = {64}, float[4] b, int64[4] s4 = {1, -1, 1, 1}>
        { q, s, z = DynamicQuantizeLinear(x)  p = ConvInteger<pads = [1, 1, 1, 1]>(q, w, z, wz)  f = Cast<to = 1>(p)
          t = Mul(ws, s)  h = Mul(f, t)  r = Reshape(b, s4)  y = Add(h, r) }
    """,
    "conv integer without bias": """
        net (float[n, 6, 5, 5] x) => (float[n, 4, 3, 3] y)
        <int8[4, 6, 3, 3] w, float ws = {0.02}, int8 wz>
        { q, s, z = DynamicQuantizeLinear(x)  p = ConvInteger(q, w, z, wz)  f = Cast<to = 1>(p)
          t = Mul(s, ws)  y = Mul(f, t) }
    """,
}


def written(name: str, build: Build) -> Path:
    text = FORMS[name].replace("SCALES", SCALES)
    kind, _, shape = text.split("] w,")[0].rpartition("int8[")
    sizes = tuple(int(size) for size in shape.split(","))
    weights = {"w": RNG.integers(0, 128, sizes) if kind.endswith("u") else RNG.integers(-60, 60, sizes)}
    if "int32[4] b" in text:
        weights["b"] = np.array([50, -80, 100, 0])
    if "int8[4] wz" in text:
        weights["wz"] = np.zeros(4)
    return build(text, **weights)


def values(layer: Layer, path: Path, analysis) -> tuple[np.ndarray, np.ndarray]:
    """What the layer makes of random inputs by its rows and matrix, and what the model gives."""
    shape = (40, *analysis.shapes.shapes["x"][1:])
    stepper = Stepper(
        analysis.model,
        analysis.shapes.dtypes,
        [{"x": 2 * np.random.default_rng(1).standard_normal(shape).astype(np.float32)}],
    )
    stepper.advance([layer.x, "y"])
    ((x, y),) = stepper.batches(layer.x, "y")
    matrix = matrix_of(layer)
    bias = bias_of(layer, len(matrix) * matrix.shape[2]).reshape(len(matrix), 1, -1)
    return layer.form.rows(x, None) @ matrix + bias, layer.outputs(y)


def close(made: np.ndarray, given: np.ndarray, layer: Layer) -> bool:
    """To half a step of the result, where it is not cut off at the ends of its range."""
    inside = (given > given.min()) & (given < given.max())
    if layer.form.rectified:
        assert (made[given == given.min()] < STEP).all()
    tolerance = 0.51 * STEP if layer.form.hidden is not None else 0.03 * np.abs(given).max()
    return bool((np.abs(made - given)[inside] <= tolerance).all())


@pytest.mark.parametrize("name", FORMS)
def test_rows_times_matrix_and_bias_are_the_output(name: str, build: Build) -> None:
    path = written(name, build)
    analysis = inspect(path)
    (layer,) = layers(analysis, hidden=True)
    assert layer.form.rectified == name.startswith("rectified")
    assert close(*values(layer, path, analysis), layer)


@pytest.mark.parametrize("name", FORMS)
def test_another_matrix_and_bias_are_what_the_operator_then_computes(name: str, build: Build) -> None:
    path = written(name, build)
    analysis = inspect(path)
    (layer,) = layers(analysis, hidden=True)
    matrix = matrix_of(layer)
    wanted = 0.7 * matrix + 0.1 * np.abs(matrix).max() * RNG.standard_normal(matrix.shape)
    bias = RNG.standard_normal(len(matrix) * matrix.shape[2])
    types = {name: value.dtype for name, value in analysis.model.graph.initializers.items()}
    set_matrix(analysis.model, layer, wanted, analysis)
    if layer.has_bias:
        set_bias(analysis.model, layer, bias, analysis)
    assert np.abs(matrix_of(layer) - wanted).max() < (0.15 if "bits" in name else 0.01) * np.abs(wanted).max()
    assert {name: value.dtype for name, value in analysis.model.graph.initializers.items()}.items() >= types.items()
    (again,) = layers(analysis, hidden=True)
    if again.has_bias:
        np.testing.assert_allclose(bias_of(again, len(bias)), bias, atol=0.01)
    made, given = values(again, path, analysis)
    assert close(made, given, again)
