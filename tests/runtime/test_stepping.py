"""Piece by piece gives what a whole run gives, with weights as they are when their piece is run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from onnxprune.errors import ModelError
from onnxprune.pipeline.run import inspect
from onnxprune.runtime.stepper import Array, Stepper
from tests.conftest import Build

CHAIN = """
    net (float[batch, 4] x, float[batch, 6] z) => (float[batch, 3] y)
    <float[4, 6] a, float[6, 6] b, float[6, 3] c>
    { h = MatMul(x, a)  r = Relu(h)  i = MatMul(r, b)  s = Add(i, z)  t = Add(s, r)  y = MatMul(t, c) }
"""
STEPS = (["h"], ["i", "r"], ["t"], ["y"])


def feeds() -> list[dict[str, Array]]:
    rng = np.random.default_rng(0)
    sizes = {"x": 4, "z": 6}
    return [{name: rng.standard_normal((n, size), np.float32) for name, size in sizes.items()} for n in (5, 3)]


def whole(path: Path, name: str) -> list[Array]:
    model = onnx.load(path)
    model.graph.output.append(onnx.ValueInfoProto(name=name))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [session.run([name], feed)[0] for feed in feeds()]


def stepper(path: Path, memory: int = 1 << 30) -> Stepper:
    analysis = inspect(path)
    return Stepper(analysis.model, analysis.shapes.dtypes, feeds(), memory=memory)


@pytest.mark.parametrize("memory", [1 << 30, 0], ids=["in memory", "in files"])
def test_values_equal_a_whole_run(memory: int, build: Build) -> None:
    path = build(CHAIN)
    steps = stepper(path, memory)
    for names in STEPS:
        steps.advance(names)
        in_files = [value for values in steps._values for value in values.values() if not isinstance(value, np.ndarray)]
        assert bool(in_files) == (memory == 0)
        assert len(list(Path(steps._folder.name).iterdir())) == len(in_files) if steps._folder else not in_files
        for name in names:
            for (got,), due in zip(steps.batches(name), whole(path, name), strict=True):
                np.testing.assert_allclose(got, due, rtol=1e-5, atol=1e-5)


def test_a_look_ahead_sees_later_weights_and_keeps_nothing(build: Build) -> None:
    path = build(CHAIN)
    steps = stepper(path)
    steps.advance(["h"])
    for (r, y, h), *due in zip(steps.peek("r", "y", "h"), *(whole(path, name) for name in "ryh"), strict=True):
        for got, wanted in zip((r, y, h), due, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
    assert len(steps.would_run(["y"])) == 5
    weight = steps._model.graph.initializers["c"]
    weight.const_value = ir.Tensor(np.zeros((6, 3), np.float32))
    assert all(not y.any() for (y,) in steps.peek("y"))


def test_inputs_are_values_too(build: Build) -> None:
    steps = stepper(build(CHAIN))
    steps.advance(["x"])
    for (got,), feed in zip(steps.batches("x"), feeds(), strict=True):
        np.testing.assert_array_equal(got, feed["x"])


def test_weight_changed_between_steps_is_seen(build: Build) -> None:
    path = build(CHAIN)
    analysis = inspect(path)
    steps = Stepper(analysis.model, analysis.shapes.dtypes, feeds())
    steps.advance(["r"])
    analysis.model.graph.initializers["b"].const_value = ir.Tensor(np.zeros((6, 6), np.float32), name="b")
    analysis.model.graph.initializers["a"].const_value = ir.Tensor(np.zeros((4, 6), np.float32), name="a")
    steps.advance(["s", "t"])
    for (s, t), feed, r in zip(steps.batches("s", "t"), feeds(), whole(path, "r"), strict=True):
        np.testing.assert_allclose(s, feed["z"])
        np.testing.assert_allclose(t, feed["z"] + r, rtol=1e-5, atol=1e-5)  # a was used before it changed


def test_only_what_is_read_later_is_kept(build: Build) -> None:
    steps = stepper(build(CHAIN))
    steps.advance(["i"])
    steps.advance(["t"])
    steps.advance(["y"])
    with pytest.raises(KeyError):
        next(iter(steps.batches("h")))


def test_every_node_runs_once(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[str] = []
    original = Stepper._session

    def spy(self: Stepper, piece: list[ir.Node], made: list[str]) -> tuple[object, list[str]]:
        pieces.extend(node.outputs[0].name or "" for node in piece)
        return original(self, piece, made)

    monkeypatch.setattr(Stepper, "_session", spy)
    steps = stepper(build(CHAIN))
    for names in STEPS:
        steps.advance(names)
        steps.advance(names)
    assert sorted(pieces) == ["h", "i", "r", "s", "t", "y"]


def test_branch_reads_what_it_captures(build: Build) -> None:
    path = build("""
        net (float[batch, 4] x, bool flag) => (float[batch, 4] y) <float[4, 4] w>
        {
            h = MatMul(x, w)
            y = If (flag) <
                then_branch = yes () => (float[batch, 4] t) { t = Relu(h) },
                else_branch = no () => (float[batch, 4] e) { e = Neg(h) }
            >
        }
    """)
    analysis = inspect(path)
    x = np.random.default_rng(0).standard_normal((3, 4), np.float32)
    steps = Stepper(analysis.model, analysis.shapes.dtypes, [{"x": x, "flag": np.array(False)}])
    steps.advance(["h"])
    steps.advance(["y"])
    ((y,),) = steps.batches("y")
    np.testing.assert_allclose(y, -(x @ onnx.numpy_helper.to_array(onnx.load(path).graph.initializer[0])), rtol=1e-5)


def test_wrong_data_is_refused_in_one_line(build: Build) -> None:
    analysis = inspect(build(CHAIN))
    steps = Stepper(analysis.model, analysis.shapes.dtypes, [{"x": np.zeros((2, 5), np.float32)}])
    with pytest.raises(ModelError) as caught:
        steps.advance(["h"])
    assert "\n" not in str(caught.value)


def test_sequences_pass_from_piece_to_piece(build: Build) -> None:
    text = """
        net (float[batch, 4] x, float[batch, 6] z) => (float[batch, 2] y)
        <int64 one = {1}, int64[2] sizes = {1, 3}>
        { s = SplitToSequence<axis = 1>(x, sizes)  t = SequenceAt(s, one)  u = Neg(t)
          v = SequenceInsert(s, u)  two = Add(one, one)  w = SequenceAt(v, two)  y = Slice(w, one_, three, one_) }
    """
    text = text.replace("int64 one", "int64[1] one_ = {1}, int64[1] three = {3}, int64 one")
    steps = stepper(build(text))
    for names in (["s"], ["u"], ["v"], ["y"]):
        steps.advance(names)
    for (got,), feed in zip(steps.batches("y"), feeds(), strict=True):
        np.testing.assert_array_equal(got, -feed["x"][:, 2:])
