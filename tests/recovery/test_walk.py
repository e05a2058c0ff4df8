"""Walking through a pruned model: what can be repaired exactly is, and errors do not pile up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.model.file import save
from onnxprune.steps.recover.evidence import Evidence
from onnxprune.steps.recover.layerwise import walk
from onnxprune.steps.recover.pairing import Pairing
from onnxprune.steps.recover.reconstruct import BestFit
from tests.conftest import Build
from tests.recovery.pruned import error, feeds, outputs, outputs_of, pair

RNG = np.random.default_rng(3)
NARROW = RNG.standard_normal((4, 4))
# Six units that are combinations of the first four.
WIDE = np.hstack([NARROW, NARROW @ RNG.standard_normal((4, 2))])
WIDE_BIAS = RNG.standard_normal(6)

LINEAR = """
    net (float[batch, 4] x) => (float[batch, 3] y)
    <float[4, 6] a, float[6] p, float[6, 5] b, float[5, 3] c>
    { h = Gemm(x, a, p)  i = MatMul(h, b)  r = Relu(i)  y = MatMul(r, c) }
"""
CONVOLUTIONS = """
    net (float[batch, 4, 6, 5] x) => (float[batch, 3, 6, 5] y)
    <float[6, 4, 1, 1] a, float[5, 6, 3, 3] b, float[3, 5, 1, 1] c>
    { h = Conv(x, a)  i = Conv<pads = [1, 1, 1, 1]>(h, b)  r = Relu(i)  y = Conv(r, c) }
"""
GROUPED = """
    net (float[batch, 4, 6] x) => (float[batch, 2, 4] y)
    <float[12, 4, 1] a, float[4, 6, 3] b, float[2, 4, 1] c>
    { h = Conv(x, a)  i = Conv<group = 2>(h, b)  r = Relu(i)  y = Conv(r, c) }
"""
NORMED = """
    net (float[batch, 4, 6] x) => (float[batch, 2, 6] y)
    <float[6, 4, 1] a, float[5, 6, 1] b, float[2, 5, 1] c, float[5] gain, float[5] shift, float[5] mean, float[5] var>
    { h = Conv(x, a)  i = Conv(h, b)  n = BatchNormalization(i, gain, shift, mean, var)  r = Relu(n)  y = Conv(r, c) }
"""

LSTM = """
    net (float[length, 5, 4] x) => (float[length, 2, 5, 3] y)
    <float[4, 6] a, float[2, 12, 6] w, float[2, 12, 3] r, float[2, 24] b>
    { h = MatMul(x, a)  y = LSTM<direction = "bidirectional", hidden_size = 3>(h, w, r, b) }
"""
GRU = """
    net (float[length, 5, 4] x) => (float[length, 1, 5, 3] y)
    <float[4, 6] a, float[1, 9, 6] w, float[1, 9, 3] r>
    { h = MatMul(x, a)  y = GRU<hidden_size = 3, linear_before_reset = 1>(h, w, r) }
"""

SIDE_BY_SIDE = """
    net (float[batch, 3, 2, 4] x) => (float[batch, 3, 2, 7] y)
    <float[4, 6] a, float[3, 6, 5] b, float[3, 1, 5] p, float[3, 5, 7] c>
    { h = MatMul(x, a)  i = MatMul(h, b)  j = Add(i, p)  r = Relu(j)  y = MatMul(r, c) }
"""
PRODUCTS_FIRST = """
    net (float[batch, 2, 4] x) => (float[5, batch, 7] y)
    <float[4, 6] a, float[5, 6, 3] b, float[5, 3, 7] c, int64[3] s = {1, -1, 8}, int64[3] all = {5, 1, 1},
     int64[3] t = {1, -1, 4}>
    { f = Reshape(x, t)  h = MatMul(f, a)  e = Expand(h, all)  i = MatMul(e, b)  r = Relu(i)  y = MatMul(r, c) }
"""
TURNED = """
    net (float[batch, 4] x) => (float[batch, 3] y)
    <float[4, 6] a, float[5, 6] b, float[5, 3] c>
    { h = MatMul(x, a)  t = Transpose(b)  i = MatMul(h, t)  r = Relu(i)  y = MatMul(r, c) }
"""
FUSED_MATMUL = """
    net (float[batch, 4] x) => (float[batch, 3] y)
    <float[4, 6] a, float[5, 6] b, float[5, 3] c>
    {
        h = MatMul(x, a)  i = com.microsoft.FusedMatMul<transB = 1, alpha = 0.5>(h, b)
        r = Relu(i)  y = MatMul(r, c)
    }
"""
FUSED_GEMM = """
    net (float[batch, 4] x) => (float[batch, 3] y)
    <float[4, 6] a, float[5, 6] b, float[5] p, float[5, 3] c>
    {
        h = MatMul(x, a)  i = com.microsoft.FusedGemm<transB = 1, alpha = 0.5, beta = 2.0, activation = "Relu">(h, b, p)
        y = MatMul(i, c)
    }
"""
FUSED_CONV = """
    net (float[batch, 4, 6, 5] x) => (float[batch, 5, 3, 3] y)
    <float[6, 4, 1, 1] a, float[5, 6, 3, 3] b, float[5] p, float[5, 4, 4, 3] v>
    {
        h = Conv(x, a)  s = Conv<strides = [1, 1], pads = [0, 0, 0, 0]>(x, v)
        y = com.microsoft.FusedConv<pads = [1, 1, 1, 1], strides = [2, 2], activation = "Relu">(h, b, p, s)
    }
"""
ATTENTION = """
    net (float[batch, 5, 4] x) => (float[batch, 5, 7] y)
    <float[4, 6] a, float[6, 18] w, float[18] b, float[6, 7] c>
    { h = MatMul(x, a)  i = com.microsoft.Attention<num_heads = 2>(h, w, b)  y = MatMul(i, c) }
"""
TOWERS = """
    net (float[batch, 4] x) => (float[batch, 5] y)
    <float[4, 6] a, float[4, 6] b, float[6, 5] w, float[5] p, float[5] q>
    {
        h = MatMul(x, a)  i = Gemm(h, w, p)
        z = Sin(x)  j = MatMul(z, b)  k = Gemm(j, w, q)
        y = Mul(i, k)
    }
"""


def both_ways(pairing: Pairing, path: Path, folder: Path, shape: tuple[int, ...]) -> tuple[float, float]:
    """The error of the pruned model before and after its layers are fitted, on data it has not seen."""
    data, unseen = feeds(shape=shape), feeds(shape=shape, batches=6)[-1:]
    due = outputs(path, unseen)
    before = error(outputs_of(pairing, folder, unseen), due)
    walk(pairing, data, BestFit())
    return before, error(outputs_of(pairing, folder, unseen), due)


@pytest.mark.parametrize(
    ("graph", "weights", "gone", "shape"),
    [
        (LINEAR, {"a": WIDE, "p": WIDE_BIAS}, {"a": (4, 5)}, (4,)),
        (CONVOLUTIONS, {"a": WIDE.T[:, :, None, None]}, {"a": (4, 5)}, (4, 6, 5)),
        (GROUPED, {"a": np.concatenate([WIDE.T, WIDE.T])[:, :, None]}, {"a#2": (4, 5)}, (4, 6)),
        (NORMED, {"a": WIDE.T[:, :, None], "var": [1.0, 2.0, 0.5, 1.0, 3.0]}, {"a": (4, 5)}, (4, 6)),
        (LSTM, {"a": WIDE}, {"a": (4, 5)}, (5, 4)),
        (GRU, {"a": WIDE}, {"a": (4, 5)}, (5, 4)),
        (SIDE_BY_SIDE, {"a": WIDE}, {"a": (4, 5)}, (3, 2, 4)),
        (PRODUCTS_FIRST, {"a": WIDE}, {"a": (4, 5)}, (2, 4)),
        (TURNED, {"a": WIDE}, {"a": (4, 5)}, (4,)),
        (FUSED_MATMUL, {"a": WIDE}, {"a": (4, 5)}, (4,)),
        (FUSED_GEMM, {"a": WIDE}, {"a": (4, 5)}, (4,)),
        (
            FUSED_CONV,
            {"a": WIDE.T[:, :, None, None], "v": 0.1 * RNG.standard_normal((5, 4, 4, 3))},
            {"a": (4, 5)},
            (4, 6, 5),
        ),
        (ATTENTION, {"a": WIDE}, {"a": (4, 5)}, (5, 4)),
        (TOWERS, {"a": WIDE, "b": WIDE}, {"a": (4, 5)}, (4,)),
    ],
    ids=[
        *("gemm", "conv", "grouped", "norm", "lstm", "gru", "side by side", "products first", "turned"),
        *("fused matmul", "fused gemm", "fused conv", "attention", "towers"),
    ],
)
def test_units_that_others_can_replace_are_replaced(graph, weights, gone, shape, build: Build, tmp_path: Path) -> None:
    path = build(graph, **weights)
    pairing = pair(path, gone)
    before, after = both_ways(pairing, path, tmp_path, shape)
    assert before > 1e-2
    assert after < 1e-8


def test_bias_is_made_where_there_is_none(build: Build, tmp_path: Path) -> None:
    """Units that are constant are made up for by a bias alone; MatMul has none, so an Add takes it."""
    path = build(LINEAR, a=np.hstack([NARROW, np.zeros((4, 2))]), p=[0, 0, 0, 0, 2, -1])
    pairing = pair(path, {"a": (4, 5)})
    before, after = both_ways(pairing, path, tmp_path, (4,))
    assert before > 1e-2
    assert after < 1e-8
    assert [node.op_type for node in pairing.pruned.model.graph] == ["Gemm", "MatMul", "Add", "Relu", "MatMul", "Add"]
    assert [value.name for value in pairing.pruned.model.graph.outputs] == ["y"]


STREAM = """
    net (float[batch, 4] x) => (float[batch, 6] y)
    <float[4, 6] a, float[6, 8] b, float[8, 6] c, float[6, 8] d, float[8, 6] e>
    {
        s = MatMul(x, a)
        h = MatMul(s, b)  i = Relu(h)  j = MatMul(i, c)  t = Add(s, j)
        k = MatMul(t, d)  l = Sigmoid(k)  m = MatMul(l, e)  y = Add(m, t)
    }
"""


def test_target_behind_a_residual_is_what_the_sum_should_be(build: Build) -> None:
    pairing = pair(build(STREAM), {"b": (0, 1, 2, 3, 4)})
    seen: dict[str, Evidence] = {}

    def watch(evidence: Evidence) -> tuple[np.ndarray, np.ndarray] | None:
        seen[evidence.layer.weight] = evidence
        return None

    data = feeds()
    walk(pairing, data, watch)
    original, folder = build(STREAM, name="both"), build(STREAM).parent
    expose(original, ("m", "t", "l"))
    save(pairing.pruned.model, folder / "cut.onnx")
    expose(folder / "cut.onnx", ("m", "t", "l"))
    m, skip = outputs_by(original, data, "m"), outputs_by(original, data, "t")
    lacking = skip - outputs_by(folder / "cut.onnx", data, "t")
    assert np.abs(lacking).max() > 0.1
    np.testing.assert_allclose(seen["e"].everything.t[0], (m + lacking).mean(0), atol=1e-4)
    np.testing.assert_allclose(seen["e"].everything.tt[0], (m + lacking).var(0), rtol=1e-3)
    np.testing.assert_allclose(seen["d"].everything.x[0], outputs_by(folder / "cut.onnx", data, "t").mean(0), atol=1e-4)


def expose(path: Path, names: tuple[str, ...]) -> None:
    model = onnx.load(path)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    onnx.save(model, path)


def outputs_by(path: Path, data, name: str) -> np.ndarray:
    from onnxprune.runtime.session import Session

    session = Session(path)
    return np.concatenate([session.run(feed, [name])[name] for feed in data])


def test_errors_of_a_stream_are_made_up_for_behind_it(build: Build, tmp_path: Path) -> None:
    """The second branch is whole; it still learns to give what the first one lacks."""
    path = build(STREAM)
    pairing = pair(path, {"b": (0, 1, 2, 3, 4, 5)})
    first = pair(path, {"b": (0, 1, 2, 3, 4, 5)})
    data = feeds()
    due = outputs(path, data)

    def only_the_first(evidence: Evidence):
        return BestFit()(evidence) if evidence.layer.weight != "e" else None

    walk(first, data, only_the_first)
    walk(pairing, data, BestFit())
    assert error(outputs_of(pairing, tmp_path, data), due) < 0.7 * error(outputs_of(first, tmp_path, data), due)


RECTIFIED = """
    net (float[batch, 4] x) => (float[batch, 5] y)
    <float[4, 12] a, float[12, 5] b, float[5] p>
    { h = MatMul(x, a)  r = Relu(h)  i = Gemm(r, b, p)  y = Relu(i) }
"""


FUSED = 'y = com.microsoft.FusedGemm<activation = "Relu">(r, b, p)'


@pytest.mark.parametrize("graph", [RECTIFIED, RECTIFIED.replace("i = Gemm(r, b, p)  y = Relu(i)", FUSED)])
def test_negative_targets_in_front_of_a_relu_are_free(graph: str, build: Build, tmp_path: Path) -> None:
    path = build(graph, p=[-2, -3, -2, -1, -2])
    data = feeds(batches=10)
    due = outputs(path, data)
    errors = {}
    for rounds in (0, 2):
        pairing = pair(path, {"a": (0, 1, 2, 3, 4, 5)})
        walk(pairing, data, BestFit(), rounds=rounds)
        errors[rounds] = error(outputs_of(pairing, tmp_path, data), due)
    assert errors[2] < 0.9 * errors[0]


def test_second_of_two_branches_makes_up_for_the_first(build: Build, tmp_path: Path) -> None:
    """Which of them comes first in the file does not matter; neither is run before it is mended."""
    first, second = "j = MatMul(i, c)", "k = MatMul(x, d)"
    for number, (one, two) in enumerate(((first, second), (second, first))):
        graph = f"""
            net (float[batch, 4] x) => (float[batch, 3] y)
            <float[4, 8] b, float[8, 6] c, float[4, 6] d, float[6, 3] e>
            {{ h = MatMul(x, b)  i = Relu(h)  {one}  {two}  s = Add(j, k)  y = MatMul(s, e) }}
        """
        path = build(graph, name=f"order{number}")
        pairing = pair(path, {"b": (0, 1, 2, 3)})
        before, after = both_ways(pairing, path, tmp_path, (4,))
        assert after < 0.5 * before
        assert len(walk(pair(path, {"b": (0,)}), feeds(), BestFit())) == 4


def test_errors_are_reported_by_layer(build: Build) -> None:
    pairing = pair(build(CONVOLUTIONS), {"a": (0, 1)})
    told: list[str] = []
    found = walk(pairing, feeds(shape=(4, 6, 5)), BestFit(), progress=told.append)
    assert len(found) == len(told) == 3
    assert found[0].before < 1e-6
    assert 0 <= found[1].after < found[1].before
    assert told[1].startswith("recovering layer 2 of 3")


def test_a_single_batch_is_cut_in_two(build: Build) -> None:
    """Some of it has to be held out."""
    pairing = pair(build(LINEAR), {"a": (0,)})
    seen = []

    def watch(evidence: Evidence) -> None:
        seen.append((evidence.train.count, evidence.held_out.count))

    walk(pairing, feeds(batches=1, size=41), watch)
    assert seen[0] == (20, 21)


def test_values_that_are_not_finite_leave_the_layer_alone(build: Build) -> None:
    graph = """
        net (float[batch, 4] x) => (float[batch, 3] y)
        <float[4, 6] a, float[6, 3] b>
        { h = MatMul(x, a)  l = Log(h)  y = MatMul(l, b) }
    """
    pairing = pair(build(graph), {"a": (0,)})
    assert [each.layer for each in walk(pairing, feeds(), BestFit())] == ["a"]


def test_half_precision_weights_stay_half(build: Build) -> None:
    graph = LINEAR.replace("float[", "float16[")
    path = build(graph)
    pairing = pair(path, {"a": (4, 5)})
    data = [{"x": feed["x"].astype(np.float16)} for feed in feeds()]
    walk(pairing, data, BestFit())
    floats = {str(value.dtype) for value in pairing.pruned.model.graph.initializers.values()}
    assert floats == {"FLOAT16"}
    save(pairing.pruned.model, path.with_name("half.onnx"))
    outputs(path.with_name("half.onnx"), data)
