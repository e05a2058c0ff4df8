"""Every form of an affine layer: its rows times its matrix, and the bias, are what ONNX Runtime gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxprune.analysis import layers
from onnxprune.analysis.layers import Layer, bias_of, choose_positions, matrix_of, read
from onnxprune.pipeline.run import inspect
from onnxprune.runtime.stepper import Stepper
from tests.conftest import Build

NORM = "float[6] gain, float[6] shift, float[6] mean, float[6] variance"


def conv(attributes: str, weight: str, bias: str = "", x: str = "batch, 4, 9, 8") -> str:
    inputs = "x, w, b" if bias else "x, w"
    return f"""
        net (float[{x}] x) => (float y)
        <float[{weight}] w{f", float[{bias}] b" if bias else ""}>
        {{ y = Conv{attributes}({inputs}) }}
    """


FORMS = {
    "einsum": """
        net (float[batch, 5, 4] x) => (float[batch, 5, 6] y) <float[6, 4] w>
        { y = Einsum<equation = "bti,oi->bto">(x, w) }
    """,
    "einsum with an ellipsis and axes in another order": """
        net (float[batch, 4, 5, 3] x) => (float[batch, 3, 5, 6] y) <float[4, 6] w, float[6] b>
        { h = Einsum<equation = "...ist, io -> ...tso">(x, w)  y = Add(h, b) }
    """,
    "conv": conv("<pads = [1, 1, 1, 1]>", "6, 4, 3, 3", "6"),
    "conv without a bias": conv("", "6, 4, 3, 3"),
    "strides": conv("<strides = [2, 3], pads = [0, 1, 2, 1]>", "6, 4, 3, 2", "6"),
    "dilations": conv("<dilations = [2, 3], pads = [2, 0, 1, 3]>", "6, 4, 3, 2", "6"),
    "same upper": conv('<auto_pad = "SAME_UPPER", strides = [2, 3]>', "6, 4, 4, 3", "6"),
    "same lower": conv('<auto_pad = "SAME_LOWER", strides = [2, 1]>', "6, 4, 4, 3", "6"),
    "valid": conv('<auto_pad = "VALID", strides = [2, 1]>', "6, 4, 3, 3", "6"),
    "groups": conv("<group = 2, pads = [1, 1, 1, 1]>", "6, 2, 3, 3", "6"),
    "depthwise": conv("<group = 4, strides = [2, 2]>", "8, 1, 3, 3", "8"),
    "sequence": conv("<pads = [2, 1]>", "6, 4, 4", "6", x="batch, 4, 11"),
    "volume": conv("<strides = [1, 2, 1]>", "6, 4, 2, 3, 2", "6", x="batch, 4, 5, 6, 4"),
    "transposed": """
        net (float[batch, 4, 5, 4] x) => (float y) <float[4, 6, 3, 2] w, float[6] b> { y = ConvTranspose(x, w, b) }
    """,
    "transposed in groups": """
        net (float[batch, 4, 5, 4] x) => (float y) <float[4, 3, 3, 2] w, float[6] b>
        { y = ConvTranspose<group = 2, strides = [2, 3], dilations = [2, 1], pads = [1, 0, 2, 1],
          output_padding = [1, 0]>(x, w, b) }
    """,
    "transposed and cut": """
        net (float[batch, 4, 5, 4] x) => (float y) <float[4, 6, 2, 1] w>
        { y = ConvTranspose<strides = [2, 2], pads = [2, 1, 0, 1]>(x, w) }
    """,
    "gemm": """
        net (float[batch, 5] x) => (float[batch, 6] y) <float[5, 6] w, float[6] b> { y = Gemm(x, w, b) }
    """,
    "gemm scaled and turned": """
        net (float[batch, 5] x) => (float[batch, 6] y) <float[6, 5] w, float[6] b>
        { y = Gemm<alpha = 0.5, beta = 3.0, transB = 1>(x, w, b) }
    """,
    "gemm with one number for a bias": """
        net (float[batch, 5] x) => (float[batch, 6] y) <float[5, 6] w, float[1] b> { y = Gemm(x, w, b) }
    """,
    "matmul": """
        net (float[batch, 3, 5] x) => (float[batch, 3, 6] y) <float[5, 6] w> { y = MatMul(x, w) }
    """,
    "matmul and add": """
        net (float[batch, 3, 5] x) => (float[batch, 3, 6] y) <float[5, 6] w, float[6] b>
        { h = MatMul(x, w)  y = Add(b, h) }
    """,
    "matmul of a weight stored turned": """
        net (float[batch, 3, 5] x) => (float[batch, 3, 6] y) <float[6, 5] w> { t = Transpose(w)  y = MatMul(x, t) }
    """,
    "products side by side": """
        net (float[batch, 3, 2, 5] x) => (float[batch, 3, 2, 6] y) <float[3, 5, 6] w, float[3, 1, 6] b>
        { h = MatMul(x, w)  y = Add(h, b) }
    """,
    "products side by side with one bias": """
        net (float[batch, 3, 2, 5] x) => (float[batch, 3, 2, 6] y) <float[3, 5, 6] w, float[6] b>
        { h = MatMul(x, w)  y = Add(h, b) }
    """,
    "fused matmul": """
        net (float[batch, 3, 5] x) => (float[batch, 3, 6] y) <float[6, 5] w>
        { y = com.microsoft.FusedMatMul<alpha = 0.5, transB = 1>(x, w) }
    """,
    "batch norm": f"""
        net (float[batch, 6, 5] x) => (float[batch, 6, 5] y) <{NORM}>
        {{ y = BatchNormalization<epsilon = 0.01>(x, gain, shift, mean, variance) }}
    """,
    "conv and batch norm": f"""
        net (float[batch, 4, 5, 5] x) => (float[batch, 6, 3, 3] y) <float[6, 2, 3, 3] w, {NORM}>
        {{ h = Conv<group = 2>(x, w)  y = BatchNormalization(h, gain, shift, mean, variance) }}
    """,
    "matmul, add and batch norm": f"""
        net (float[batch, 5] x) => (float[batch, 6] y) <float[5, 6] w, float[6] b, {NORM}>
        {{ h = MatMul(x, w)  i = Add(h, b)  y = BatchNormalization(i, gain, shift, mean, variance) }}
    """,
}
POSITIVE = {"variance": [0.5, 1.0, 2.0, 3.0, 0.1, 0.7]}


def only_layer(path: Path) -> tuple[Layer, Stepper, np.random.Generator]:
    """The layer, and its values on seven samples."""
    analysis = inspect(path)
    (layer,) = layers.layers(analysis)
    rng = np.random.default_rng(1)
    shape = (7, *analysis.shapes.shapes["x"][1:])
    stepper = Stepper(analysis.model, analysis.shapes.dtypes, [{"x": rng.standard_normal(shape).astype(np.float32)}])
    stepper.advance([layer.x, layer.y])
    return layer, stepper, rng


@pytest.mark.parametrize("name", FORMS)
def test_rows_times_matrix_and_bias_are_the_output(name: str, build: Build) -> None:
    layer, stepper, rng = only_layer(build(FORMS[name], **(POSITIVE if "norm" in name else {})))
    ((x, y),) = stepper.batches(layer.x, layer.y)
    matrix = matrix_of(layer)
    bias = bias_of(layer, len(matrix) * matrix.shape[2]).reshape(len(matrix), 1, -1)
    for positions in (None, choose_positions(layer.places(y.shape), 4, rng)):
        rows, outputs = layer.form.rows(x, positions), layer.outputs(y, positions)
        assert rows.shape[:2] == outputs.shape[:2]
        assert rows.shape[1] == len(x) * (layer.places(y.shape) if positions is None else len(positions))
        np.testing.assert_allclose(rows @ matrix + bias, outputs, atol=1e-4)


@pytest.mark.parametrize("name", FORMS)
def test_matrix_and_weight_are_inverse(name: str, build: Build) -> None:
    layer, _, _ = only_layer(build(FORMS[name], **(POSITIVE if "norm" in name else {})))
    weight = read(layer.stored)
    np.testing.assert_allclose(layer.form.weight(layer.form.matrix(weight)), weight, rtol=1e-6)


def test_features_know_their_channel(build: Build) -> None:
    """A change of one input channel is seen by its own features and no others."""
    layer, stepper, _ = only_layer(build(FORMS["groups"]))
    ((x, _),) = stepper.batches(layer.x, layer.y)
    channels = layer.feature_channels(x.shape[1])
    for channel in range(x.shape[1]):
        other = x.copy()
        other[:, channel] += 1
        changed = (layer.form.rows(x, None) != layer.form.rows(other, None)).any(axis=1)
        np.testing.assert_array_equal(changed, channels == channel)


@pytest.mark.parametrize(
    "graph",
    [
        "{ h = MatMul(x, w)  i = Mul(h, w)  y = MatMul(i, w) }",  # somebody else reads it
        "{ h = Transpose(w)  i = Mul(h, x)  y = Mul(i, x) }",  # no product
        "{ h = Reshape(x, last)  i = Gemm<transA = 1>(x, w)  y = Add(i, x) }",  # sums over samples
        "{ i = Gemm<beta = 0.0>(x, w, x)  y = Add(i, x) }",
    ],
)
def test_what_is_no_layer_with_a_weight_of_its_own(graph: str, build: Build) -> None:
    head = "net (float[5, 5] x) => (float[5, 5] y) <float[5, 5] w, int64[2] last = {-1, 5}>"
    assert not list(layers.layers(inspect(build(f"{head}\n{graph}"))))


def test_norm_with_another_reader_is_a_layer_of_its_own(build: Build) -> None:
    graph = f"""
        net (float[batch, 4] x) => (float[batch, 6] y) <float[4, 6] w, {NORM}>
        {{ h = Gemm(x, w)  n = BatchNormalization(h, gain, shift, mean, variance)  y = Add(n, h) }}
    """
    found = list(layers.layers(inspect(build(graph, **POSITIVE))))
    assert [(layer.node.op_type, layer.norm) for layer in found] == [("Gemm", None), ("BatchNormalization", None)]


STREAM = """
    net (float[batch, 4] x) => (float[batch, 4] y) <float[4, 6] w, float[6, 4] v, float[4] b, float[4, 4] u>
    { h = MatMul(x, w)  r = Relu(h)  m = MatMul(r, v)  k = Add(m, b)  s = Add(x, k)  t = Relu(s)  y = MatMul(t, u) }
"""


def test_residual_and_rectified(build: Build) -> None:
    analysis = inspect(build(STREAM))
    first, second, last = layers.layers(analysis)
    assert layers.residual(first, analysis) is None
    behind = layers.residual(second, analysis)
    assert behind is not None
    assert (behind.skip, behind.sum) == ("x", "s")
    assert layers.residual(last, analysis) is None
    assert layers.is_rectified(first, None)
    assert layers.is_rectified(second, behind)
    assert not layers.is_rectified(last, None)


@pytest.mark.parametrize(
    "graph",
    [
        "{ h = MatMul(x, w)  y = Add(h, h) }",
        "{ h = MatMul(x, w)  r = Relu(h)  y = Add(h, r) }",
        "{ h = MatMul(x, w)  y = Add(h, w) }",
    ],
)
def test_sum_with_itself_or_a_weight_is_no_residual(graph: str, build: Build) -> None:
    analysis = inspect(build(f"net (float[4, 4] x) => (float[4, 4] y) <float[4, 4] w>\n{graph}"))
    assert all(layers.residual(layer, analysis) is None for layer in layers.layers(analysis))


def test_positions_are_sorted_and_distinct() -> None:
    rng = np.random.default_rng(0)
    assert choose_positions(10, 10, rng) is None
    chosen = choose_positions(100, 30, rng)
    assert chosen is not None
    assert len(chosen) == 30
    assert (np.diff(chosen) > 0).all()
    assert 0 <= chosen.min() <= chosen.max() < 100
