"""Layers split into two thinner ones: the same with all directions, what lies along them with fewer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxprune.analysis.layers import layers, plain_matrix
from onnxprune.analysis.splittable import splittable
from onnxprune.model.file import save
from onnxprune.passes.low_rank import SplitLayers
from onnxprune.passes.rotate import RotateStreams, streams
from onnxprune.pipeline.run import inspect
from onnxprune.runtime.session import Session
from tests.conftest import Build

RNG = np.random.default_rng(5)
KINDS = {
    "MatMul": (
        "net (float[batch, 4, 8] x) => (float[batch, 4, 6] y) <float[8, 6] w, float[6] b> "
        "{ h = MatMul(x, w)  y = Add(h, b) }"
    ),
    "Gemm": "net (float[batch, 8] x) => (float[batch, 6] y) <float[6, 8] w, float[6] b> "
    "{ y = Gemm<transB = 1, alpha = 0.5, beta = 2.0>(x, w, b) }",
    "Conv": "net (float[batch, 3, 8, 8] x) => (float[batch, 6, 4, 4] y) <float[6, 3, 3, 3] w, float[6] b> "
    "{ y = Conv<pads = [1, 1, 1, 1], strides = [2, 2], kernel_shape = [3, 3]>(x, w, b) }",
    "LSTM": "net (float[5, batch, 8] x) => (float[5, 2, batch, 3] y) <float[2, 12, 8] w, float[2, 12, 3] r> "
    '{ y = LSTM<direction = "bidirectional", hidden_size = 3>(x, w, r) }',
    "GRU": "net (float[5, batch, 8] x) => (float[5, 1, batch, 3] y) <float[1, 9, 8] w, float[1, 9, 3] r> "
    "{ y = GRU<hidden_size = 3>(x, w, r) }",
}


def outputs(path: Path) -> np.ndarray:
    shape = [3 if isinstance(size, str) else size for size in Session(path).inputs[0].shape]
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    return next(iter(Session(path).run({"x": x}).values()))


def split(path: Path, rank: int | None = None) -> Path:
    """The model with its layer split along the directions of its matrix, all of them or the first few."""
    analysis = inspect(path)
    (layer,) = (each for each in layers(analysis, hidden=True) if splittable(each))
    matrix = plain_matrix(layer)[0]
    axes = np.linalg.svd(matrix)[2].T[:, :rank]
    assert SplitLayers(analysis, {layer.weight: axes})(analysis.model).modified
    save(analysis.model, path.with_name("split.onnx"))
    return path.with_name("split.onnx")


@pytest.mark.parametrize("kind", KINDS)
def test_with_all_directions_it_is_the_same_model(kind: str, build: Build) -> None:
    path = build(KINDS[kind])
    thin = split(path)
    np.testing.assert_allclose(outputs(thin), outputs(path), atol=1e-5)
    found = inspect(thin)
    operators = [node.op_type for node in found.model.graph]
    assert operators.count("MatMul") + operators.count("Conv") + operators.count("Gemm") >= 1 + (kind not in "LSTMGRU")
    assert found.groups  # the units between are there to be removed


@pytest.mark.parametrize("kind", ["MatMul", "Gemm", "Conv"])
def test_a_matrix_of_two_directions_needs_two_units(kind: str, build: Build) -> None:
    shape = {"MatMul": (8, 6), "Gemm": (6, 8), "Conv": (6, 3, 3, 3)}[kind]
    flat = RNG.standard_normal((shape[0], 2)) @ RNG.standard_normal((2, int(np.prod(shape[1:]))))
    path = build(KINDS[kind], w=flat.reshape(shape))
    np.testing.assert_allclose(outputs(split(path, 2)), outputs(path), atol=1e-4)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(outputs(split(path, 1)), outputs(path), atol=1e-4)


@pytest.mark.parametrize(
    "graph",
    [
        "net (float[b, 4, 6, 6] x) => (float[b, 6, 4, 4] y) <float[6, 2, 3, 3] w> { y = Conv<group = 2>(x, w) }",
        "net (float[8, 5] x) => (float[5, 6] y) <float[8, 6] w> { y = Gemm<transA = 1>(x, w) }",
        "net (float[b, 8] x) => (float[b, 8] y) <float[8, 8] w> { h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, w) }",
    ],
)
def test_other_layers_stay_as_they_are(graph: str, build: Build) -> None:
    assert not [layer for layer in layers(inspect(build(graph))) if splittable(layer)]


def test_rotated_streams_give_the_same_outputs(build: Build) -> None:
    """An embedding that two convolutions and an LSTM read, moved about on the way."""
    path = build(
        """
        net (int64[5, batch] x) => (float[batch, 3, 5] y, float[batch, 4, 5] z, float[5, 1, batch, 2] s)
        <float[9, 6] e, float[3, 6, 3] v, float[4, 6, 1] w, float[1, 8, 6] i, float[1, 8, 2] r>
        {
            h = Gather(e, x)  t = Transpose<perm = [1, 2, 0]>(h)  y = Conv<pads = [1, 1]>(t, v)  z = Conv(t, w)
            s = LSTM<hidden_size = 2>(h, i, r)
        }
        """
    )
    analysis = inspect(path)
    (stream,) = streams(analysis)
    assert len(stream.readers) == 3
    axes = RNG.standard_normal((6, 6)) + 3 * np.eye(6)
    feed = {"x": np.random.default_rng(0).integers(0, 9, (5, 4))}
    due = Session(path).run(feed)
    assert RotateStreams(analysis, {stream.group.id: axes})(analysis.model).modified
    save(analysis.model, path.with_name("rotated.onnx"))
    for name, found in Session(path.with_name("rotated.onnx")).run(feed).items():
        np.testing.assert_allclose(found, due[name], atol=1e-4)


BOTTLENECK = """
    net (float[batch, 4, 6, 6] x) => (float[batch, 5, 6, 6] y, float[batch, 3, 6, 6] z)
    <float[8, 4, 1, 1] a, float[8] b, float[10, 8, 3, 3] e, float[8, 10, 1, 1] p, float[8] q, float[8, 8, 1, 1] s,
     float[5, 8, 3, 3] v, float[3, 8, 1, 1] w>
    { h = Conv(x, a, b)  k = Conv<pads = [1, 1, 1, 1]>(h, e)  r = Relu(k)  m = Conv(r, p, q)  n = Add(h, m)
      o = Conv(n, s)  d = Add(n, o)  y = Conv<pads = [1, 1, 1, 1]>(d, v)  z = Conv(n, w) }
"""


def test_rotated_bottlenecks_give_the_same_outputs(build: Build) -> None:
    """Convolutions with biases write a stream that is added up; one reads it and writes it at once."""
    path = build(BOTTLENECK)
    analysis = inspect(path)
    (stream,) = streams(analysis)
    assert (len(stream.writers), len(stream.readers)) == (3, 4)
    axes = RNG.standard_normal((8, 8)) + 3 * np.eye(8)
    feed = {"x": RNG.standard_normal((2, 4, 6, 6)).astype(np.float32)}
    due = Session(path).run(feed)
    assert RotateStreams(analysis, {stream.group.id: axes})(analysis.model).modified
    save(analysis.model, path.with_name("rotated.onnx"))
    for name, found in Session(path.with_name("rotated.onnx")).run(feed).items():
        np.testing.assert_allclose(found, due[name], atol=1e-3 * np.abs(due[name]).max())


@pytest.mark.parametrize(("given", "made"), [("k = Conv", "g = Relu(h)  k = Conv"), ("d = Add(n, o)", "d = Mul(n, o)")])
def test_bottlenecks_that_something_nonlinear_touches_are_not_rotated(given: str, made: str, build: Build) -> None:
    graph = BOTTLENECK.replace(given, made)
    graph = graph.replace("](h, e)", "](g, e)") if "Relu(h)" in made else graph
    assert not list(streams(inspect(build(graph))))


@pytest.mark.parametrize("between", ["Relu(h)", "Add(h, p)", "Softmax(h)"])
def test_what_is_changed_on_its_way_is_not_rotated(between: str, build: Build) -> None:
    graph = "net (int64[batch, 5] x) => (float[batch, 5, 3] y) <float[9, 6] e, float[6, 3] w, float[6] p> "
    assert not list(streams(inspect(build(graph + f"{{ h = Gather(e, x)  k = {between}  y = MatMul(k, w) }}"))))
