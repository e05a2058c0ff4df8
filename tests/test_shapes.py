"""Concrete shapes, small values that follow from them, and what varies from run to run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxprune.analysis.canonicalize import canonicalize
from onnxprune.analysis.coupling import analyze
from onnxprune.analysis.shape_inference import Shapes
from onnxprune.analysis.shapes import infer
from onnxprune.analysis.size_arithmetic import SizeArithmetic
from onnxprune.dims import kept_size
from onnxprune.model.file import open_model
from onnxprune.runtime.shape_probe import observe_shapes
from tests.conftest import Build


def shapes_of(path: Path) -> Shapes:
    return infer(open_model(path))


def test_static_shapes_and_types(build: Build) -> None:
    found = shapes_of(
        build("""
            net (float[2, 3, 8, 8] x) => (int64[2, 1] y)
            <float[4, 3, 3, 3] w>
            { h = Conv<strides = [2, 2]>(x, w)  f = Flatten(h)  y = ArgMax<axis = 1>(f) }
        """)
    )
    assert {name: found.shapes[name] for name in "hfy"} == {"h": (2, 4, 3, 3), "f": (2, 36), "y": (2, 1)}
    assert found.dtypes["y"] == ir.DataType.INT64
    assert not found.dynamic
    assert not found.bindings


def test_dynamic_axes_are_those_that_differ_between_two_sizes(build: Build) -> None:
    found = shapes_of(
        build("""
            net (float[batch, seq, 6] x) => (float[a, b] y)
            <int64[2] merge = {-1, 12}, float[6, 12] w>
            { h = MatMul(x, w)  y = Reshape(h, merge) }
        """)
    )
    assert found.dynamic == {("x", 0), ("x", 1), ("h", 0), ("h", 1), ("y", 0)}
    assert set(found.bindings) == {"batch", "seq"}


def test_dynamic_axes_get_unequal_sizes_and_equal_names_equal_ones(build: Build) -> None:
    found = shapes_of(
        build("""
            net (float[n, a, b] x, float[n, c, d] z) => (float[n, a, b] y, float[n, c, d] w)
            { y = Relu(x)  w = Relu(z) }
        """)
    )
    n, a, b = found.shapes["x"]
    assert found.shapes["z"][0] == n
    c, d = found.shapes["z"][1:]
    assert len({n, a, b, c, d}) == 5


def test_axis_without_a_name_is_a_symbol_of_its_own(build: Build) -> None:
    def forget_names(model: onnx.ModelProto) -> None:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].ClearField("dim_param")

    graph = "net (float[n, 4] x, float[n, 4] z) => (float[n, 4] y, float[n, 4] w) { y = Relu(x)  w = Relu(z) }"
    found = shapes_of(build(graph, edit=forget_names))
    assert set(found.bindings) == {"x[0]", "z[0]"}
    assert found.shapes["x"] != found.shapes["z"]


def test_inputs_that_are_added_share_their_batch_whatever_it_is_called(build: Build) -> None:
    found = shapes_of(build("net (float[n, 4] x, float[m, 4] z) => (float[n, 4] y) { y = Add(x, z) }"))
    assert not found.failures
    assert found.shapes["x"][0] == found.shapes["z"][0] == found.shapes["y"][0]


def test_windows_need_sizes_with_many_divisors(build: Build) -> None:
    """A sequence that is cut into blocks of 8 cannot be of prime length."""
    found = shapes_of(
        build("""
            net (float[batch, seq, 4] x) => (float[batch, blocks, 8, 4] y)
            <int64[4] blocks = {0, -1, 8, 4}>
            { y = Reshape(x, blocks) }
        """)
    )
    assert not found.failures
    assert found.shapes["x"][1] % 8 == 0


def test_image_sides_are_sizes_that_a_deep_network_can_halve(build: Build) -> None:
    found = shapes_of(build("net (float[batch, 3, h, w] x) => (float[batch, 3, h, w] y) { y = Relu(x) }"))
    assert all(size % 32 == 0 for size in found.shapes["x"][2:])
    assert found.shapes["x"][2] != found.shapes["x"][3]


# -- values


def test_shape_arithmetic_is_computed(build: Build) -> None:
    found = shapes_of(
        build("""
            net (float[2, 3, 8, 6] x) => (float[2, 3, 48] y)
            <int64 two = {2}, int64 three = {3}, int64[1] axis = {0}, int64[2] front = {0, 0}>
            {
                s = Shape(x)  h = Gather(s, two)  w = Gather(s, three)  m = Mul(h, w)  m1 = Unsqueeze(m, axis)
                t = Concat<axis = 0>(front, m1)  y = Reshape(x, t)
            }
        """)
    )
    assert found.known["t"].tolist() == [0, 0, 48]
    assert found.shapes["y"] == (2, 3, 48)


def test_what_depends_on_a_dynamic_size_is_not_known(build: Build) -> None:
    found = shapes_of(
        build("""
            net (float[batch, 3, 8] x) => (float[batch, 24] y)
            <int64 zero = {0}, int64 two = {2}, int64[1] axis = {0}, int64[1] width = {24}>
            {
                s = Shape(x)  n = Gather(s, zero)  b = Unsqueeze(n, axis)  w = Gather(s, two)
                t = Concat<axis = 0>(b, width)  y = Reshape(x, t)
            }
        """)
    )
    assert "w" in found.known
    assert not {"s", "n", "b", "t"} & set(found.known)


def test_weights_are_not_known_values(build: Build) -> None:
    """Folding them would lose track of their axes."""
    found = shapes_of(
        build("""
            net (float[2, 3] x) => (float[2, 3] y)
            <float[3] bias, float scale = {2}, int64[2] shape = {2, 3}>
            { h = Add(x, bias)  s = Mul(h, scale)  y = Reshape(s, shape) }
        """)
    )
    assert set(found.known) == {"scale", "shape"}


def test_scales_of_a_resize_are_looked_at(build: Build) -> None:
    found = shapes_of(
        build("""
            net (float[batch, 3, 4, 5] x) => (float[batch, 3, 8, 10] y)
            <float[4] scales = {1, 1, 2, 2}>
            { y = Resize<mode = "nearest">(x, , scales) }
        """)
    )
    assert found.shapes["y"][1:] == (3, 8, 10)
    assert not found.invented


def test_scales_of_which_some_are_computed(build: Build) -> None:
    """Opset 9 upsamples to the size of another value by scales: (1, 1) beside a quotient of sizes."""
    found = shapes_of(
        build(
            """
            net (float[batch, 3, 4, 5] x, float[batch, 2, 8, 15] z) => (float[a, b, c, d] y)
            <float[2] channels = {1, 1}>
            {
                sx = Shape(x)  px = Slice<starts = [2], ends = [4]>(sx)  fx = Cast<to = 1>(px)
                sz = Shape(z)  pz = Slice<starts = [2], ends = [4]>(sz)  fz = Cast<to = 1>(pz)
                q = Div(fz, fx)  scales = Concat<axis = 0>(channels, q)  y = Upsample(x, scales)
            }
            """,
            opset=9,
        )
    )
    assert found.shapes["y"][1:] == (3, 8, 15)
    assert found.dynamic == {(name, 0) for name in "xyz"}


# -- what only a run can tell


def test_size_that_depends_on_data_is_made_up_and_dynamic(build: Build) -> None:
    found = shapes_of(build("net (float[4, 5] x) => (int64[2, n] y, float[4, 5] z) { y = NonZero(x)  z = Relu(x) }"))
    assert found.invented == {"y"}
    assert found.dynamic == {("y", 1)}


UNKNOWN = """
    net (float[batch, 4] x) => (float[batch, 4] y)
    <float[4, 6] w, float[6, 4] v>
    { h = MatMul(x, w)  u = acme.Mystery(h)  y = MatMul(u, v) }
"""


def test_operator_without_a_schema_is_observed_at_both_sizes(build: Build) -> None:
    asked: list[tuple[tuple[str, ...], int]] = []

    def watch(model: ir.Model, names: list[str], bindings: dict[str, int]) -> dict:
        asked.append((tuple(names), bindings["batch"]))
        n = bindings["batch"]
        return {"u": ((n, 6), ir.DataType.FLOAT), "y": ((n, 4), ir.DataType.FLOAT)}

    found = infer(open_model(build(UNKNOWN, opsets={"acme": 1})), watch)
    assert [names for names, _ in asked] == [("u", "y")] * 2
    assert asked[0][1] != asked[1][1]
    assert found.shapes["u"] == (asked[0][1], 6)
    assert {("u", 0), ("y", 0)} <= found.dynamic


def test_what_follows_from_an_observed_size_is_not_folded(build: Build) -> None:
    """Another run may show another size."""
    path = build(
        """
        net (float[batch, 4] x) => (float[batch, 4] u, int64 n)
        <int64 one = {1}>
        { u = acme.Mystery(x)  s = Shape(u)  n = Gather(s, one) }
        """,
        opsets={"acme": 1},
    )
    found = infer(open_model(path), lambda _, __, sizes: {"u": ((sizes["batch"], 4), ir.DataType.FLOAT)})
    assert found.shapes["u"][1] == 4
    assert "n" not in found.known


def test_run_that_fails_leaves_shapes_unknown(build: Build) -> None:
    found = infer(open_model(build(UNKNOWN, opsets={"acme": 1})), lambda *_: {})
    assert "u" not in found.shapes
    assert found.shapes["h"][1] == 6


def test_observe_runs_the_model_and_leaves_it_as_it_was(build: Build) -> None:
    path = build("""
        net (float[batch, 12] x) => (float[batch, 5] y)
        <float[12, 5] w>
        { r = Relu(x)  h = MatMul(r, w)  y = Neg(h) }
    """)
    model = open_model(path)
    assert observe_shapes(model, ["h", "y"], {"batch": 3}) == {
        "h": ((3, 5), ir.DataType.FLOAT),
        "y": ((3, 5), ir.DataType.FLOAT),
    }
    assert [value.name for value in model.graph.outputs] == ["y"]


def test_observe_of_a_model_that_does_not_run_is_empty(build: Build) -> None:
    assert observe_shapes(open_model(build(UNKNOWN, opsets={"acme": 1})), ["u"], {"batch": 3}) == {}


# -- whole models


@pytest.mark.parametrize("name", ["hf.bert.dy", "hf.llama.ts17seq", "tv.shufflenet_v2_x0_5.ts17", "hm.lstm.dy"])
def test_shapes_equal_those_of_a_run(zoo_file: Callable[[str], Path], name: str) -> None:
    """Every tensor of the main graph, seen in ONNX Runtime at the sizes of the analysis."""
    model = open_model(zoo_file(name))
    found = infer(model)
    names = [value.name for node in model.graph for value in node.outputs if value.name]
    seen = observe_shapes(model, names, found.bindings)
    assert len(seen) > 0.9 * len(names)
    assert {value: found.shapes[value] for value in seen} == {value: shape for value, (shape, _) in seen.items()}
    assert {value: found.dtypes[value] for value in seen} == {value: dtype for value, (_, dtype) in seen.items()}


# -- sizes after a removal

TARGET = """
    net (float[batch, 5] x) => (float[batch, 12] y)
    <float[5, 12] w, int64 zero = {0}, int64 one = {1}, int64 four = {4}, int64[1] axis = {0}>
    {
        h = MatMul(x, w)
        s = Shape(h)  n = Gather(s, zero)  b = Unsqueeze(n, axis)
        c = Gather(s, one)  d = Div(c, four)  d1 = Unsqueeze(d, axis)  four1 = Unsqueeze(four, axis)
        t = Concat<axis = 0>(b, four1, d1)  r = Reshape(h, t)  y = Flatten(r)
    }
"""


def test_size_arithmetic_foresees_what_the_graph_will_compute(build: Build) -> None:
    model = open_model(build(TARGET.replace("[batch, 12] y", "[batch, m] y")))
    dims = analyze(model, infer(model)).dims
    values = {value.name: value for node in model.graph for value in node.outputs}
    batch = kept_size(dims["h"][0], {})
    whole = SizeArithmetic(model, dims, {})
    assert whole.value(values["t"]).tolist() == [batch, 4, 3]
    assert [source.name for source in whole.sources(values["d1"])] == ["h"]
    assert whole.value(values["r"]) is None, "that is data"


def test_canonical_form_hands_its_shapes_on(build: Build) -> None:
    model = open_model(build(TARGET.replace("[batch, 12] y", "[batch, m] y")))
    _, shapes = canonicalize(model)
    assert np.array_equal(shapes.known["d1"], [3])
    assert shapes.shapes["r"][1:] == (4, 3)
