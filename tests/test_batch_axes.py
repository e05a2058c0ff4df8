"""Which axis enumerates the samples: what exporters write, and what must not be taken for a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import onnxprune as op
from onnxprune.analysis import cost
from onnxprune.analysis.inspect import inspect
from onnxprune.cli import main
from onnxprune.data.given import as_data
from onnxprune.errors import UsageError
from onnxprune.model.batch_axes import Shape, batch_axes
from onnxprune.model.file import open_model
from onnxprune.model.signature import Port, name_axes, ports_of
from onnxprune.pipeline.run import compress
from onnxprune.runtime.latency import Setting, made_inputs, measure_latency
from onnxprune.runtime.session import Session
from tests.conftest import Build
from tests.test_verify import original_of

CASES: list[tuple[str, list[Shape], list[int | None]]] = [
    ("one input", [("batch", 3, "height", "width")], [0]),
    ("one input without names", [(None, 3, None)], [0]),
    ("one static input", [(1, 3, 224, 224)], [0]),
    ("tokens", [("batch", "sequence"), ("batch", "sequence")], [0, 0]),
    ("names of its own for every input, as dynamo gives them", [("s72", 16), ("s43", 16), ("s0", 16)], [0, 0, 0]),
    ("no names", [(None, 1), (None, 1), ("?", 1)], [0, 0, 0]),
    ("encoder and decoder", [("batch", "source"), ("batch", "target")], [0, 0]),
    ("key and value caches", [("batch", "length"), ("batch", 8, "past", 64), ("batch", 8, "past", 64)], [0, 0, 0]),
    ("caches with key and value in one", [("batch", "length"), (2, "batch", 12, "past", 64)], [0, 1]),
    ("static caches", [(1, "length"), (1, 8, "past", 64)], [0, 0]),
    ("time-major, a name that says it", [("time", "batch", 80)], [1]),
    ("time-major with lengths and a state", [("s", "b", 12), ("b",), ("b", 6)], [1, 0, 0]),
    ("time-major with lengths", [("T", "N", 80), ("N",)], [1, 0]),
    ("time-major with a state [layers, batch, hidden]", [("s0", "s1", 10), (1, "s1", 20)], [1, 1]),
    ("time-major at batch 1", [("time", 1, 10), (1, 1, 20)], [1, 1]),
    ("time-major, all static", [(50, 1, 10), (2, 1, 20), (2, 1, 20)], [1, 1, 1]),
    ("time-major, static batch of 4", [(50, 4, 10), (2, 4, 20)], [1, 1]),
    ("a voice detector", [("batch", "samples"), (2, "batch", 128), ()], [0, 1, 0]),
    ("with the rate as one number", [("batch", "samples"), (2, "batch", 128), (1,)], [0, 1, None]),
    ("whose state is static", [("batch", 576), (2, 1, 64)], [0, 1]),
    ("and without a name for the batch", [("s0", 576), (2, 1, 64)], [0, 1]),
    ("static states of one rank", [(1, 1, 512), (1, 2, 128, 2)], [0, 0]),
    ("one row beside a dynamic batch", [("batch", 3), (1, 3)], [0, 0]),
    ("a table for all samples", [("batch", 3), (4, 3)], [0, None]),
    (
        "promptable segmentation",
        [(1, 256, 64, 64), ("batch", "points", 2), ("batch", "points"), (1, 1, 256, 256), (1,), (2,)],
        [0, 0, 0, 0, None, None],
    ),
    ("a graph", [("nodes", 5), (2, "edges")], [None, None]),
    ("a graph with features of edges", [("nodes", 5), (2, "edges"), ("edges", 3), ("nodes",)], [None] * 4),
    ("static inputs with nothing in common", [(4, 3), (2, 3)], [None, None]),
    ("a length in common is not a batch", [(1, "T"), (2, "T")], [None, None]),
    ("a voice detector without names", [("?", "?"), (2, "?", 128), ()], [0, 1, 0]),
    ("names that the exporter made up", [("unk__1", 576), (2, "unk__2", 64)], [0, 1]),
    ("with a static table", [(None, 576), (2, None, 64), (5, 7)], [0, 1, None]),
    ("a graph without names", [(None, 5), (2, None)], [None, None]),
    ("further in, two axes are open", [(None, 5), (2, None, None, 3)], [None, None]),
    ("different names", [("T", 80), (2, "N", 64)], [None, None]),
    ("caches of a static batch of 1", [(1, 45, 80), (2, 1), (2, 64, 1, 192), (1,)], [0, 1, 2, 0]),
    ("sizes of 1 twice", [(1, 45, 80), (2, 1, 1, 3)], [None, None]),
    ("scalars alone", [(), ()], [0, 0]),
    ("nothing", [], []),
]


@pytest.mark.parametrize(("shapes", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_inputs(shapes: list[Shape], expected: list[int | None]) -> None:
    found, _ = batch_axes({f"input{index}": shape for index, shape in enumerate(shapes)}, {})
    assert list(found.values()) == expected


@pytest.mark.parametrize(
    ("inputs", "output", "expected"),
    [
        ([("batch", 3)], ("batch", 10), 0),
        ([("time", "batch", 80)], ("time", "batch", 10), 1),
        ([("time", "batch", 80)], ("batch", 10), 0),
        ([("time", "batch", 80)], (2, 3, "batch"), 2),
        ([("time", "batch", 80)], (None, None, 10), 0),
        ([("time", "batch", 80)], (), 0),
        ([(50, 4, 10), (2, 4, 20)], (50, 4, 20), 1),
        ([(50, 4, 10), (2, 4, 20)], (4, 20), 0),
        ([(1, 3, 8, 8)], (5, 1), 0),
        ([("nodes", 5), (2, "edges")], ("nodes", 3), 0),
    ],
)
def test_outputs(inputs: list[Shape], output: Shape, expected: int) -> None:
    found = batch_axes({str(index): shape for index, shape in enumerate(inputs)}, {"y": output})[1]
    assert found == {"y": expected}


def test_what_a_port_says_of_it() -> None:
    port = Port("h", "tensor(float)", (2, "batch", 3), 1)
    assert (port.batch_size, port.batch_symbol) == ("batch", "batch")
    assert port.bound({"batch": 4}).batch_size == 4
    assert port.bound({"batch": 4}).batch_symbol is None
    assert Port("h", "tensor(float)", (None, 3)).batch_symbol == "h[0]"
    assert Port("h", "tensor(float)", (1,), None).batch_size is None
    assert Port("h", "tensor(float)", ()).batch_symbol is None


def test_question_marks_are_not_shared() -> None:
    assert [Port("h", "tensor(float)", (size, 3)).symbol(0) for size in ("?", "", None, "n")] == ["h[0]"] * 3 + ["n"]


# Time-major: x [time, batch, 12] and the state h [1, batch, 6], which a layer widens.
LSTM = """
    net (float[s, b, 12] x, float[1, b, 6] h) => (float[s, b, 5] y, float[b, 3] z)
    <float[6, 8] p, float[1, 32, 12] w, float[1, 32, 8] r, float[8, 5] v, float[8, 3] u,
     int64[1] one = {1}, int64[1] zero = {0}>
    {
        state = MatMul(h, p)
        hs, last = LSTM<hidden_size = 8>(x, w, r, , , state)
        states = Squeeze(hs, one)
        end = Squeeze(last, zero)
        y = MatMul(states, v)
        z = MatMul(end, u)
    }
"""


def test_file_and_session_agree(build: Build) -> None:
    path = build(LSTM)
    session = Session(path)
    assert ports_of(open_model(path)) == session.inputs
    assert [port.batch_axis for port in session.inputs] == [1, 1]
    assert {port.name: port.batch_axis for port in session.outputs} == {"y": 1, "z": 0}


def test_batches_are_made_along_that_axis(build: Build) -> None:
    path = build(LSTM)
    feed = made_inputs(ports_of(open_model(path)), 3, {"s": 7})
    assert {name: array.shape for name, array in feed.items()} == {"x": (7, 3, 12), "h": (1, 3, 6)}
    (latency,) = measure_latency([path], Setting(batch=3), rounds=1, sizes={"s": 7})
    assert latency.setting.batch == 3
    assert original_of(path).trials[0].feed["x"].shape == (7, 1, 12)


def test_costs_are_those_of_one_sample(build: Build) -> None:
    """Two steps of the time axis are two steps of the work; two samples are not."""
    analysis = inspect(build(LSTM))
    sizes = cost.sizes_of_sample(analysis)
    assert sizes["b"] == 1
    assert sizes["s"] > 1
    steps = sizes["s"]
    assert cost.before(analysis).macs == steps * (32 * 12 + 32 * 8 + 8 * 5) + 8 * 3 + 6 * 8


def test_a_graph_has_no_batch_to_choose() -> None:
    ports = [Port("x", "tensor(float)", ("nodes", 5), None), Port("e", "tensor(int64)", (2, "edges"), None)]
    sizes = {"nodes": 4, "edges": 6}
    assert {name: array.shape for name, array in made_inputs(ports, 1, sizes).items()} == {"x": (4, 5), "e": (2, 6)}
    with pytest.raises(UsageError, match="batch 4 cannot be run"):
        made_inputs(ports, 4, sizes)


@pytest.mark.parametrize("form", ["synthetic", "npz", "dict"])
@pytest.mark.parametrize(
    "options", [{"target": ["drop=0.9"], "metric": "cosine"}, {"criterion": "activation-variance"}]
)
def test_a_recurrent_model_with_a_state_is_compressed_on_data(
    build: Build, tmp_path: Path, form: str, options: dict[str, Any]
) -> None:
    path = build(LSTM)
    rng = np.random.default_rng(0)
    arrays = {
        "x": rng.standard_normal((9, 21, 12)).astype(np.float32),
        "h": rng.standard_normal((1, 21, 6)).astype(np.float32),
    }
    np.savez(tmp_path / "data.npz", **arrays)  # type: ignore[arg-type]
    given: Any = {"synthetic": "synthetic", "npz": tmp_path / "data.npz", "dict": arrays}[form]
    data = as_data(given, ports_of(open_model(path)), samples=18, batch=6)
    axes = [(batch.lengths, batch.axes) for batch in data.batches()]
    assert axes == [({"x": 6, "h": 6}, {"x": 1, "h": 1})] * 3
    result = compress(path, ratio=0.5, data=data, **options)
    result.save(tmp_path / "small.onnx")
    assert result.report.recovery == "reconstruct"


# Sound of one size beside a cache [2, n, 6] and a table for all samples; the shapes do not say which axis is the batch.
CACHED = """
    net (float[n, 4] sound, float[2, m, 6] cache, float[5, 3] table) => (float[n, 3] y)
    <float[4, 8] a, float[6, 8] b, float[8, 3] c, int64[1] zero = {0}>
    {
        h = MatMul(sound, a)  s = ReduceSum<keepdims = 0>(cache, zero)  k = MatMul(s, b)
        t = Add(h, k)  r = Relu(t)  o = MatMul(r, c)  m = ReduceSum<keepdims = 0>(table, zero)  y = Add(o, m)
    }
"""
NAMED = ("sound=0", "cache=1", "table=none")


def test_axes_that_are_named(build: Build, tmp_path: Path) -> None:
    """Arrays whose first axes differ are cut along the axes that were named, and the model sees its own order."""
    rng = np.random.default_rng(0)
    arrays = {"sound": (30, 4), "cache": (2, 30, 6), "table": (5, 3)}
    data = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in arrays.items()}
    path, file = build(CACHED), tmp_path / "data.npz"
    np.savez(file, **data)
    result = op.compress(path, data=file, batch_axis=NAMED, ratio=0.3, recover="none", allow_damage=True)
    small = tmp_path / "small.onnx"
    result.save(small)
    assert result.report.quality is not None
    assert result.report.quality.inputs == "samples kept apart"
    arguments = [text for axis in NAMED for text in ("--batch-axis", axis)]
    gate = ["gate", str(small), "--baseline", str(path), "--data", str(file), "--min-agreement", "0.001", *arguments]
    found = CliRunner().invoke(main, gate)
    assert found.exit_code == 0, found.output


def test_axes_that_are_not_named_are_inferred_from_the_rest(build: Build) -> None:
    model = open_model(build(CACHED))
    name_axes(model, ["cache=1"])
    assert {port.name: port.batch_axis for port in ports_of(model)}["cache"] == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [("cache", "is not an input and its axis"), ("cash=1", "no input 'cash'"), ("cache=3", "its first axis is 0")],
)
def test_axes_that_cannot_be(text: str, said: str, build: Build) -> None:
    with pytest.raises(UsageError, match=said):
        op.compress(build(CACHED), batch_axis=(text,))
