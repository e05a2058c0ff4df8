"""Targets that may be lower are set free: in front of a Relu that comes later, and of a maximum of branches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxprune.analysis.layers import layers
from onnxprune.pipeline.run import inspect
from onnxprune.runtime.stepper import Stepper
from onnxprune.steps.recover.floors import floor_of
from onnxprune.steps.recover.reconstruct import Reconstruct
from tests.conftest import Build
from tests.recovery.pruned import error, feeds, outputs, outputs_of, pair

# The shape of a Conv1D from TensorFlow: the bias comes behind a Squeeze.
LATE = """
    net (float[batch, 4, 1, 9] x) => (float[batch, 4, 9] y)
    <float[16, 4, 1, 1] t, float[20, 16, 1, 1] w, float[1, 20, 1] b, float[4, 20, 1] v, int64[1] two = {2}>
    { h = Conv(x, t)  u = Tanh(h)  c = Conv(u, w)  s = Squeeze(c, two)  a = Add(s, b)  r = Relu(a)  y = Conv(r, v) }
"""
JOINED = """
    net (float[batch, 5, 4] x) => (float[batch, 5, 6] y)
    <float[4, 16] t, float[16, 8] p, float[16, 8] q, float[16, 8] o, float[8, 6] w, int64[1] last = {-1}>
    { h = MatMul(x, t)  u = Tanh(h)  a = MatMul(u, p)  b = MatMul(u, q)  c = MatMul(u, o)
      i = Unsqueeze(a, last)  j = Unsqueeze(b, last)  k = Unsqueeze(c, last)
      s = Concat<axis = -1>(i, j, k)  m = ReduceMax<keepdims = 0>(s, last)  y = MatMul(m, w) }
"""
PADDED = """
    net (float[batch, 5, 4] x) => (float[batch, 5, 6] y)
    <float[4, 16] t, float[16, 8] p, float[16, 8] q, float[16, 8] o, float[8, 6] w, int64[6] pads = {0, 1, 0, 0, 0, 0},
     int64[1] from = {1}, int64[1] to = {5}, int64[1] one = {1}, int64[3] flat = {0, -1, 8}>
    { h = MatMul(x, t)  u = Tanh(h)  a = MatMul(u, p)  b = MatMul(u, q)  z = Slice(u, from, to, one)  c = MatMul(z, o)
      e = Pad(c, pads)  g = Reshape(a, flat)  n = Max(g, b)  m = Max(n, e)  y = MatMul(m, w) }
"""


@pytest.mark.parametrize("graph", [LATE, JOINED, PADDED])
def test_freedom_below_the_floor_makes_a_better_fit(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graph: str
) -> None:
    shape, weights = ((4, 1, 9), {"b": np.full((1, 20, 1), -5.0)}) if graph is LATE else ((5, 4), {})
    path, data = build(graph, opset=18, **weights), feeds(shape=shape)
    due, found = outputs(path, data), []
    for free in (True, False):
        if not free:
            monkeypatch.setattr("onnxprune.steps.recover.evidence.floor_of", lambda *_: None)
        pairing = pair(path, {"t": tuple(range(0, 16, 2))})
        Reconstruct(pairing, data, rounds=6)(pairing.pruned.model)
        found.append(error(outputs_of(pairing, tmp_path, data), due))
    assert found[0] < 0.97 * found[1], found


@pytest.mark.parametrize("graph", [JOINED, PADDED])
def test_a_floor_is_the_largest_of_all_branches(build: Build, graph: str) -> None:
    """At the entries that are the largest, the floor is what the branch gives; elsewhere it is above that."""
    analysis = inspect(build(graph, opset=18))
    branches = {layer.y: layer for layer in layers(analysis) if layer.y in "abc"}
    names = [*branches, "m"]
    (values,) = Stepper(analysis.model, analysis.shapes.dtypes, feeds(shape=(5, 4), batches=1)).peek(*names)
    found = dict(zip(names, values, strict=True))
    for name, layer in branches.items():
        floor = floor_of(layer, analysis)
        assert floor is not None
        assert floor.maximum == "m"
        lowest = floor.values(found[name].shape, found["m"])
        assert (lowest >= found[name] - 1e-6).all()
        largest = np.isclose(lowest, found[name])
        assert 0.1 < largest.mean() < 0.9


def test_in_front_of_a_late_relu_the_floor_is_the_bias_below_zero(build: Build) -> None:
    analysis = inspect(build(LATE, opset=18, b=np.arange(20.0).reshape(1, 20, 1)))
    (late,) = [layer for layer in layers(analysis) if layer.weight == "w"]
    floor = floor_of(late, analysis)
    assert floor is not None
    due = np.broadcast_to(-np.arange(20.0).reshape(1, 20, 1, 1), (2, 20, 1, 9))
    np.testing.assert_allclose(floor.values(due.shape, None), due)


def test_results_that_others_read_have_none(build: Build) -> None:
    graph = JOINED.replace("y = MatMul(m, w)", "d = Add(m, a)  y = MatMul(d, w)")
    analysis = inspect(build(graph, opset=18))
    found = {layer.y: floor_of(layer, analysis) for layer in layers(analysis)}
    assert found["a"] is None
    assert found["b"] is not None
