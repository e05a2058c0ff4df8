"""Sizes that a graph demands of inputs which it leaves open, and values that it compares them with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import onnxprune as op
from onnxprune.analysis.input_sizes import unmet
from onnxprune.analysis.input_values import values_of
from onnxprune.analysis.inspect import inspect
from onnxprune.analysis.shapes import forward
from onnxprune.cli import main
from onnxprune.errors import ModelError
from onnxprune.evaluation.benchmark.suite import BenchmarkRequest, Inputs, benchmark, sizes_for
from onnxprune.model.file import open_model
from onnxprune.model.signature import IndexRange, ports_of
from onnxprune.runtime.session import Session
from tests.conftest import Build

# A text recognizer: its height has to come out as one row, the width is free.
RECOGNIZER = """
    net (float[n, 3, h, w] x) => (float[n, t, 20] y)
    <float[8, 3, 3, 3] w1, float[16, 8, 3, 3] w2, float[16, 16, 3, 3] w3, float[16, 20] w4, int64[1] row = {2}>
    {
        a = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(x, w1)  ar = Relu(a)
        b = Conv<strides = [4, 1], pads = [1, 1, 1, 1]>(ar, w2)  br = Relu(b)
        c = Conv<strides = [2, 1], pads = [1, 1, 1, 1]>(br, w3)  cr = Relu(c)
        d = MaxPool<kernel_shape = [3, 2], strides = [3, 2]>(cr)
        e = Squeeze(d, row)  f = Transpose<perm = [0, 2, 1]>(e)  y = MatMul(f, w4)
    }
"""
# Flattened into a fixed number of features, as classifiers of one image size are.
FLATTENED = """
    net (float[n, 3, h, w] x) => (float[n, 5] y)
    <float[8, 3, 3, 3] w1, float[392, 5] w2>
    { a = Conv<strides = [4, 4], pads = [1, 1, 1, 1]>(x, w1)  b = Relu(a)  f = Flatten(b)  y = Gemm(f, w2) }
"""
# Two inputs that are added, with axes of their own names.
ADDED = """
    net (float[n1, t1, 8] a, float[n2, t2, 6] b) => (float[n1, t1, 4] y)
    <float[8, 16] wa, float[6, 16] wb, float[16, 4] wy>
    { p = MatMul(a, wa)  q = MatMul(b, wb)  s = Add(p, q)  r = Relu(s)  y = MatMul(r, wy) }
"""
# Twelve steps make a window.
WINDOWS = """
    net (float[1, t, 8] x) => (float[k, 4] y)
    <float[8, 16] w, float[192, 4] v, int64[2] window = {-1, 192}>
    { h = MatMul(x, w)  r = Relu(h)  q = Reshape(r, window)  y = MatMul(q, v) }
"""
# States that fix how many samples there are.
STATES = """
    net (float[t, n, 6] x, float[1, m, 8] h) => (float[1, k, 8] y)
    <float[1, 24, 6] w, float[1, 24, 8] r>
    { z, y = GRU<hidden_size = 8>(x, w, r, "", "", h) }
""".replace('""', "")


@pytest.mark.parametrize(
    ("graph", "fits"),
    [
        (RECOGNIZER, lambda sizes: 33 <= sizes["h"] <= 80),
        (FLATTENED, lambda sizes: sizes["h"] == sizes["w"] and 25 <= sizes["h"] <= 28),
        (ADDED, lambda sizes: sizes["n1"] == sizes["n2"] and sizes["t1"] == sizes["t2"]),
        (WINDOWS, lambda sizes: sizes["t"] % 12 == 0),
        (STATES, lambda sizes: sizes["n"] == sizes["m"]),
    ],
    ids=["recognizer", "flattened", "added", "windows", "states"],
)
def test_sizes_are_what_the_graph_demands(build: Build, graph: str, fits: Callable[[dict[str, int]], bool]) -> None:
    path = build(graph)
    analysis = inspect(path)
    assert fits(analysis.shapes.bindings)
    assert not list(unmet(analysis.model, analysis.shapes))
    assert analysis.groups or graph is STATES
    if analysis.groups:
        op.compress(path, ratio=0.5, recover="none").save(path.with_name("small.onnx"))


# One operator each, with sizes at which it runs and others at which ONNX Runtime refuses it.
REFUSED: dict[str, tuple[str, dict[str, int], dict[str, int]]] = {
    "Squeeze": ("net (float[a, 3] x) => (float[b] y) <int64[1] i = {0}> { y = Squeeze(x, i) }", {"a": 1}, {"a": 2}),
    "Reshape": (
        "net (float[a, 3] x) => (float[2, 6] y) <int64[2] s = {2, 6}> { y = Reshape(x, s) }",
        {"a": 4},
        {"a": 5},
    ),
    "Reshape -1": (
        "net (float[a, 3] x) => (float[b, 6] y) <int64[2] s = {-1, 6}> { y = Reshape(x, s) }",
        {"a": 4},
        {"a": 5},
    ),
    "MatMul": ("net (float[2, a] x) => (float[2, 3] y) <float[4, 3] w> { y = MatMul(x, w) }", {"a": 4}, {"a": 5}),
    "Gemm": (
        "net (float[a, 2] x) => (float[2, 3] y) <float[3, 4] w> { y = Gemm<transA = 1, transB = 1>(x, w) }",
        {"a": 4},
        {"a": 3},
    ),
    "LSTM": (
        "net (float[2, 1, a] x) => (float[2, 1, 1, 3] y) <float[1, 12, 4] w, float[1, 12, 3] r>"
        "{ y = LSTM<hidden_size = 3>(x, w, r) }",
        {"a": 4},
        {"a": 5},
    ),
    "Conv": ("net (float[1, a, 5] x) => (float[1, 2, 3] y) <float[2, 4, 3] w> { y = Conv(x, w) }", {"a": 4}, {"a": 2}),
    "Add": ("net (float[a, 3] x) => (float[4, 3] y) <float[4, 3] w> { y = Add(x, w) }", {"a": 1}, {"a": 3}),
    "Concat": (
        "net (float[a, 3] x) => (float[4, 5] y) <float[4, 2] w> { y = Concat<axis = 1>(x, w) }",
        {"a": 4},
        {"a": 5},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("graph", "good", "bad"), REFUSED.values(), ids=REFUSED)
def test_what_is_demanded_is_what_a_run_refuses(
    build: Build, graph: str, good: dict[str, int], bad: dict[str, int]
) -> None:
    path = build(graph)
    model, session = open_model(path), Session(path)

    def shapes(sizes: dict[str, int]) -> dict[str, Any]:
        return {port.name: np.zeros(port.bound(sizes).shape, np.float32) for port in session.inputs}  # type: ignore[arg-type]

    assert not list(unmet(model, forward(model, good)))
    session.run(shapes(good))
    assert list(unmet(model, forward(model, bad)))
    with pytest.raises(ModelError):
        session.run(shapes(bad))


def test_room_for_a_window(build: Build) -> None:
    """ONNX Runtime makes something up where a pooling window does not fit, so no size like that is taken."""
    model = open_model(build("net (float[1, 1, a] x) => (float[1, 1, b] y) { y = MaxPool<kernel_shape = [4]>(x) }"))
    assert [each.demand.size for each in unmet(model, forward(model, {"a": 3}))] == [4]
    assert not list(unmet(model, forward(model, {"a": 4})))


def detector() -> onnx.ModelProto:
    """A voice detector: one network for 16 kHz and one for 8 kHz, each of which takes one frame at a time."""
    rng = np.random.default_rng(0)
    weights, helper = [], onnx.helper

    def weight(name: str, *shape: int) -> str:
        weights.append(onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name))
        return name

    def branch(tag: str, window: int) -> onnx.GraphProto:
        own, head = weight(f"{tag}w", 12, 1, window), weight(f"{tag}v", 12, 1)
        nodes = [
            helper.make_node("Unsqueeze", ["x", "one"], [f"{tag}u"]),
            helper.make_node("Conv", [f"{tag}u", own], [f"{tag}c"], strides=[window]),
            helper.make_node("Relu", [f"{tag}c"], [f"{tag}r"]),
            helper.make_node("Squeeze", [f"{tag}r", "two"], [f"{tag}s"]),
            helper.make_node("MatMul", [f"{tag}s", head], [f"{tag}y"]),
        ]
        return helper.make_graph(nodes, tag, [], [helper.make_tensor_value_info(f"{tag}y", 1, None)])

    raising = helper.make_graph(  # at any other rate it stops, as some do
        [helper.make_node("Reshape", ["x", "nothing"], ["e"])],
        "other",
        [],
        [helper.make_tensor_value_info("e", 1, None)],
    )
    inner = helper.make_graph(
        [
            helper.make_node("Equal", ["rate", "low"], ["is_low"]),
            helper.make_node("If", ["is_low"], ["z"], then_branch=branch("b", 256), else_branch=raising),
        ],
        "inner",
        [],
        [helper.make_tensor_value_info("z", 1, None)],
    )
    nodes = [
        helper.make_node("Equal", ["rate", "high"], ["is_high"]),
        helper.make_node("If", ["is_high"], ["y"], then_branch=branch("a", 512), else_branch=inner),
    ]
    for name, number in (("high", 16000), ("low", 8000), ("one", [1]), ("two", [2]), ("nothing", [7, 7, 7])):
        weights.append(onnx.numpy_helper.from_array(np.array(number, np.int64), name))
    inputs = [helper.make_tensor_value_info("x", 1, ["n", "t"]), helper.make_tensor_value_info("rate", 7, [])]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", 1, ["n", 1])], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_values_that_steer_a_graph_are_tried(tmp_path: Path) -> None:
    path = tmp_path / "detector.onnx"
    onnx.save(detector(), path)
    result = op.compress(path, ratio=0.5, recover="none")
    trial = result.original.trials[0]
    assert trial.feed["rate"] in (16000, 8000)
    assert trial.feed["x"].shape[1] // {16000: 512, 8000: 256}[int(trial.feed["rate"])] == 1
    result.save(tmp_path / "small.onnx")


OFFSET_IDS = """
    net (int64[n, t] ids) => (float[n, t, 5] y)
    <float[20, 8] table, float[8, 12] w, float[12, 5] v, int64 first = {100}>
    { i = Sub(ids, first)  e = Gather(table, i)  h = MatMul(e, w)  r = Relu(h)  y = MatMul(r, v) }
"""
# No constant tells which ids there are: they are hashed first.
HIDDEN_IDS = OFFSET_IDS.replace(
    "i = Sub(ids, first)", "sq = Mul(ids, ids)  i = Sub(sq, first)"
).replace("{100}", "{9990}")  # fmt: skip


def test_ids_that_begin_elsewhere(build: Build) -> None:
    path = build(OFFSET_IDS)
    op.compress(path, ratio=0.5, recover="none").save(path.with_name("small.onnx"))
    op.compress(path, data="synthetic", ratio=0.5).save(path.with_name("fitted.onnx"))


def test_samples_are_tried_first(build: Build) -> None:
    path = build(HIDDEN_IDS)
    with pytest.raises(ModelError, match=r"refuses all inputs that were tried; give samples with --data.*ids 1x11"):
        op.compress(path, ratio=0.5, recover="none")
    result = op.compress(path, data={"ids": np.full((6, 9), 100, np.int64)}, ratio=0.5)
    assert [trial.feed["ids"].shape for trial in result.original.trials] == [(1, 9), (3, 9), (1, 10), (1, 1)]
    result.save(path.with_name("small.onnx"))


def test_macs_are_counted_at_the_sizes_of_the_data(build: Build) -> None:
    path = build(ADDED)
    samples = {"a": np.zeros((3, 9, 8), np.float32), "b": np.zeros((3, 9, 6), np.float32)}
    assert op.compress(path, data=samples, recover="none", ratio=0.5).report.sizes == {
        "n1": 1,
        "t1": 9,
        "n2": 1,
        "t2": 9,
    }
    wanted = op.compress(path, input_shape=("a:1x21x8", "b:1x21x6"), ratio=0.5, recover="none")
    assert wanted.report.before.macs == 21 * (8 * 16 + 6 * 16 + 16 * 4)


@pytest.mark.parametrize("command", ["inspect", "compress", "gate --max-macs 1"])
def test_every_command_takes_sizes(build: Build, command: str, quick_inputs: None) -> None:
    path = build(WINDOWS)
    name, *options = command.split()
    result = CliRunner().invoke(main, [name, str(path), *options, "--json", "--input-shape", "x:1x24x8"])
    assert result.exit_code == (1 if name == "gate" else 0), result.stderr
    assert ("at t=24" if name == "gate" else '"t": 24') in result.stdout
    wrong = CliRunner().invoke(main, [name, str(path), *options, "--input-shape", "z:1x24x8"])
    assert "no input 'z'" in wrong.output


def test_a_batch_that_has_to_be_one_is_found(build: Build) -> None:
    """Declared as dynamic, but the file flattens everything into one row."""
    path = build("""
        net (float[n, 4, 3] x) => (float[1, 5] y)
        <int64[2] row = {1, 12}, float[3, 3] w, float[12, 5] v>
        { h = MatMul(x, w)  a = Relu(h)  r = Reshape(a, row)  y = MatMul(r, v) }
    """)
    assert inspect(path).shapes.bindings == {"n": 1}
    op.compress(path, ratio=0.5, recover="none").save(path.with_name("small.onnx"))


GRAPH_NETWORK = """
    net (float[nodes, 5] x, int64[2, edges] ends) => (float[edges, 3] y)
    <float[5, 16] w, float[16, 3] v, int64 zero = {0}>
    { h = MatMul(x, w)  r = Relu(h)  start = Gather(ends, zero)  m = Gather(r, start)  y = MatMul(m, v) }
"""


def test_benchmark_draws_positions_inside_of_their_table(build: Build) -> None:
    """The ends of edges are nodes, all of which can come up; there are as many as the analysis took."""
    path = build(GRAPH_NETWORK)
    ports = ports_of(open_model(path))
    sizes, values, _ = sizes_for(path, ports, (), None)
    ends = Inputs(tuple(ports), {**sizes, "edges": 400}, None, 0, values).feed(1)["ends"]
    assert set(ends.ravel().tolist()) == set(range(sizes["nodes"]))
    found = benchmark([path], BenchmarkRequest(rounds=1))
    assert dict(found.measured[0][0].latency.sizes) == sizes
    report = op.compress(path, target="latency=100ms", recover="none").report
    assert report.sizes == sizes


# Declared for batches, but a matrix product within the sample is written for one.
ONE_AT_A_TIME = """
    net (float[n, 4, 3] x) => (float[n, 4, 5] y)
    <int64[2] flat = {4, 3}, int64[3] back = {1, 4, 5}, float[3, 16] w, float[16, 5] v>
    { f = Reshape(x, flat)  h = MatMul(f, w)  r = Relu(h)  z = MatMul(r, v)  y = Reshape(z, back) }
"""


def test_a_model_that_takes_one_sample_at_a_time(build: Build, tmp_path: Path) -> None:
    """Found out by a trial."""
    path = build(ONE_AT_A_TIME)
    samples = np.random.default_rng(0).standard_normal((40, 4, 3)).astype(np.float32)
    result = op.compress(path, data={"x": samples}, ratio=0.5)
    assert result.original.one_by_one
    assert any("takes one sample at a time" in note for note in result.report.notes)
    assert result.report.recovery == "reconstruct"
    result.save(tmp_path / "small.onnx")


def test_made_up_samples_come_one_at_a_time_too(build: Build) -> None:
    result = op.compress(build(ONE_AT_A_TIME), ratio=0.5)
    assert any("takes one sample at a time" in note for note in result.report.notes)
    assert result.report.recovery == "reconstruct"
    assert not any("not measured" in note for note in result.report.notes)


def test_scores_and_quality_of_one_sample_at_a_time(build: Build, tmp_path: Path) -> None:
    path, small = build(ONE_AT_A_TIME), tmp_path / "small.onnx"
    op.compress(path, ratio=0.5, recover="none").save(small)
    data = {"x": np.random.default_rng(0).standard_normal((40, 4, 3)).astype(np.float32)}
    assert len(op.score(path, "activation-mean", data)) == 1
    for given in (None, data):
        assert op.evaluate(path, small, data=given).scores
    _, found = op.sensitivity(path, data)
    assert found.curves


def test_gate_and_benchmark_feed_one_sample_at_a_time(build: Build, tmp_path: Path) -> None:
    path, small, samples = build(ONE_AT_A_TIME), tmp_path / "small.onnx", tmp_path / "samples.npz"
    op.compress(path, ratio=0.2, recover="none", allow_damage=True).save(small)
    np.savez(samples, x=np.random.default_rng(0).standard_normal((40, 4, 3)).astype(np.float32))
    gate = ["gate", str(small), "--baseline", str(path), "--data", str(samples), "--min-agreement", "0.001"]
    found = CliRunner().invoke(main, gate)
    assert found.exit_code == 0, found.output
    timed = CliRunner().invoke(main, ["benchmark", str(path), str(small), "--data", str(samples), "--seconds", "0.1"])
    assert timed.exit_code == 0, timed.output
    assert "takes one sample at a time" in timed.output


def test_regions_are_in_images_that_there_are(build: Build, quick_inputs: None) -> None:
    """The image of each box is a position along the batch of another input, here a batch of one."""
    graph = """
        net (float[1, 3, 16, 16] x, float[k, 4] boxes, int64[k] image) => (float[k, 5] y)
        <float[12, 3, 3, 3] w, float[48, 10] f, float[10, 5] c>
        {
            h = Conv<pads = [1, 1, 1, 1]>(x, w)
            q = RoiAlign<output_height = 2, output_width = 2, sampling_ratio = 2>(h, boxes, image)
            v = Flatten(q)  g = MatMul(v, f)  z = Relu(g)  y = MatMul(z, c)
        }
    """
    path = build(graph)
    assert values_of(inspect(path)) == {"image": IndexRange(0, 1)}
    report = op.compress(path, ratio=0.3, allow_damage=True).report
    assert report.recovery == "reconstruct"
    assert not any("not measured" in note for note in report.notes)
