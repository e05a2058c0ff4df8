"""Layers in the bodies of If, Loop and Scan are fitted like those outside of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnxprune as op
from onnxprune.model.inner_values import name_seen_by
from onnxprune.pipeline.run import inspect
from onnxprune.runtime.stepper import Stepper
from onnxprune.steps.recover.layerwise import walk
from onnxprune.steps.recover.pairing import Pairing
from onnxprune.steps.recover.reconstruct import BestFit
from tests.conftest import Build
from tests.recovery.pruned import Array, error, outputs, outputs_of, pair

RNG = np.random.default_rng(3)
NARROW = RNG.standard_normal((4, 4))
# Six units that are combinations of the first four: without two of them the layer behind can give the same.
WIDE = np.hstack([NARROW, NARROW @ RNG.standard_normal((4, 2))])

BRANCHES = """
    net (float[batch, 4] x, bool c) => (float[batch, 3] y)
    <float[4, 6] a, float[6, 5] b, float[6, 5] d, float[5] p, float[5, 3] e>
    {
        h = MatMul(x, a)
        r = If (c) <
            then_branch = yes () => (float[batch, 5] t) { i = Gemm(h, b, p)  t = Tanh(i) },
            else_branch = no () => (float[batch, 5] u) { j = MatMul(h, d)  u = Relu(j) }
        >
        y = MatMul(r, e)
    }
"""
NESTED = """
    net (float[batch, 4] x, bool c) => (float[batch, 3] y)
    <float[4, 6] a, float[6, 5] b, float[6, 5] d, float[6, 5] q, float[5, 3] e>
    {
        h = MatMul(x, a)
        n = Not(c)
        r = If (c) <
            then_branch = yes () => (float[batch, 5] t) {
                t = If (n) <
                    then_branch = never () => (float[batch, 5] v) { k = MatMul(h, q)  v = Relu(k) },
                    else_branch = always () => (float[batch, 5] w) { l = MatMul(h, b)  w = Tanh(l) }
                >
            },
            else_branch = no () => (float[batch, 5] u) { j = MatMul(h, d)  u = Relu(j) }
        >
        y = MatMul(r, e)
    }
"""
LOOP = """
    net (float[batch, 4] x, bool c) => (float[batch, 3] y)
    <float[4, 6] a, float[6, 3] b, float[3] p, int64 trips = {3}, bool always = {1}, float half = {0.5}>
    {
        h = MatMul(x, a)
        n = Cast<to = 1>(c)
        f = Mul(x, n)
        s = ReduceSum<keepdims = 1>(f, axis)
        z = Sub(s, s)
        start = Concat<axis = 1>(z, z, z)
        y = Loop (trips, always, start) <
            body = step (int64 i, bool on, float[batch, 3] before) => (bool again, float[batch, 3] after) {
                m = Gemm(h, b, p)  g = Tanh(m)  o = Mul(before, half)  after = Add(o, g)  again = Identity(on)
            }
        >
    }
""".replace("float half", "int64[1] axis = {1}, float half")
SCAN = """
    net (float[batch, 5, 4] x, bool c) => (float[batch, 5, 3] y)
    <float[4, 6] a, float[6, 3] b, float[3, 3] u>
    {
        w = MatMul(x, a)
        n = Cast<to = 1>(c)
        f = Mul(x, n)
        q = ReduceSum<keepdims = 0>(f, axes)
        z = Sub(q, q)
        start = Concat<axis = 1>(z, z, z)
        end, y = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1],
            body = cell (float[batch, 3] before, float[batch, 6] now) => (float[batch, 3] after, float[batch, 3] seen) {
                g = MatMul(now, b)  r = MatMul(before, u)  t = Add(g, r)  after = Tanh(t)  seen = Identity(after)
            }
        > (start, w)
    }
""".replace("float[3, 3] u", "float[3, 3] u, int64[1] axes = {1}").replace(
    "start = Concat<axis = 1>(z, z, z)", "k = ReduceSum<keepdims = 1>(z, axes)  start = Concat<axis = 1>(k, k, k)"
)


def feeds(shape: tuple[int, ...], batches: int = 8) -> list[dict[str, Array]]:
    """Normal inputs; of the condition both values."""
    rng = np.random.default_rng(0)
    return [
        {"x": rng.standard_normal((40, *shape)).astype(np.float32), "c": np.array(number % 2 == 0)}
        for number in range(batches)
    ]


def fitted(pairing: Pairing, path: Path, folder: Path, shape: tuple[int, ...]) -> tuple[float, float]:
    """The error of the pruned model before and after its layers are fitted, on data it has not seen."""
    data, unseen = feeds(shape), feeds(shape, 10)[-2:]
    due = outputs(path, unseen)
    before = error(outputs_of(pairing, folder, unseen), due)
    walk(pairing, data, BestFit())
    return before, error(outputs_of(pairing, folder, unseen), due)


@pytest.mark.parametrize(
    ("graph", "shape"),
    [(BRANCHES, (4,)), (NESTED, (4,)), (LOOP, (4,)), (SCAN, (5, 4))],
    ids=["branches", "branch in a branch", "loop", "scan"],
)
def test_units_that_others_can_replace_are_replaced(graph, shape, build: Build, tmp_path: Path) -> None:
    path = build(graph, a=WIDE)
    (group,) = [group.id for group in inspect(path).groups if group.units == 6]
    pairing = pair(path, {group: (4, 5)})
    assert not pairing.left()
    before, after = fitted(pairing, path, tmp_path, shape)
    assert before > 1e-2
    assert after < 1e-8


def test_values_of_all_steps_come_one_after_the_other(build: Build) -> None:
    path = build(SCAN, a=WIDE)
    analysis = inspect(path)
    layer = next(node for _, node in analysis.operators if node.op_type == "MatMul" and node.graph.name == "cell")
    x, y = (name_seen_by(layer, value.name or "", analysis.model) for value in (layer.inputs[0], layer.outputs[0]))
    data = feeds((5, 4), 2)
    steps = Stepper(analysis.model, analysis.shapes.dtypes, data)
    steps.advance([x, y])
    weights = layer.inputs[1].const_value.numpy()
    before = sorted(value.name or "" for node in analysis.model.graph for value in node.outputs)
    for (given, made), feed in zip(steps.batches(x, y), data, strict=True):
        due = (feed["x"] @ WIDE.astype(np.float32)).transpose(1, 0, 2).reshape(-1, 6)
        np.testing.assert_allclose(given, due, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(made, given @ weights, rtol=1e-4, atol=1e-5)
    assert before == sorted(value.name or "" for node in analysis.model.graph for value in node.outputs)


def test_a_branch_that_never_runs_stays_as_it_is(build: Build) -> None:
    path = build(BRANCHES, a=WIDE)
    (group,) = [group.id for group in inspect(path).groups if group.units == 6]
    pairing = pair(path, {group: (4, 5)})
    stored = pairing.pruned.model.graph.initializers["d"]
    before = stored.const_value.numpy().copy()
    walk(pairing, [{**feed, "c": np.array(True)} for feed in feeds((4,))], BestFit())
    np.testing.assert_array_equal(pairing.pruned.model.graph.initializers["d"].const_value.numpy(), before)


def test_a_fit_that_drifts_over_the_steps_is_taken_back(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    path = build(SCAN, a=WIDE)
    (group,) = [group.id for group in inspect(path).groups if group.units == 6]
    pairing = pair(path, {group: (1, 2)})
    before = {name: value.const_value.numpy().copy() for name, value in pairing.pruned.model.graph.initializers.items()}

    def worse(evidence):
        return (40 * evidence.matrix, evidence.bias) if evidence.layer.weight == "u" else None

    errors = walk(pairing, feeds((5, 4)), worse)
    assert not errors
    for name, array in before.items():
        np.testing.assert_array_equal(pairing.pruned.model.graph.initializers[name].const_value.numpy(), array)


OUTSIDE = """
    net (float[batch, 4] x, bool c) => (float[batch, 3] y)
    <float[4, 6] a, float[6, 5] b, float[5] p, float[5, 3] e>
    { n = Not(c)  h = MatMul(x, a)  i = Gemm(h, b, p)  t = Tanh(i)  y = MatMul(t, e) }
"""


def test_units_that_a_body_reads_are_scored_like_those_that_the_graph_reads(build: Build) -> None:
    """The criterion knows what the fit in the body will make up for."""
    rng = np.random.default_rng(5)
    weights = {"b": rng.standard_normal((6, 5)), "p": rng.standard_normal(5), "e": rng.standard_normal((5, 3))}
    data = [{**feed, "c": np.array(True)} for feed in feeds((4,))]
    within, outside = (op.score(build(graph, a=WIDE, **weights), "obs", data) for graph in (BRANCHES, OUTSIDE))
    np.testing.assert_allclose(within["a"], outside["a"], rtol=1e-4)
