"""One form of each thing, and numbers computed from sizes keep the value that they had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from onnxprune.analysis.canonicalize import canonicalize
from onnxprune.analysis.shapes import infer
from onnxprune.model.file import open_model
from onnxprune.passes.canonicalize import Canonicalize
from tests.conftest import Build


def canonical(path: Path) -> ir.Model:
    model = open_model(path)
    assert Canonicalize()(model).modified
    return model


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def weights(model: ir.Model) -> dict[str, np.ndarray]:
    return {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}


def test_constants_become_initializers(build: Build) -> None:
    path = build("""
        net (float[batch, 3] x) => (float[batch, 3] y)
        {
            c = Constant<value = float[3] {1, 2, 3}>()  i = Constant<value_ints = [0, -1]>()
            a = Add(x, c)  y = Reshape(a, i)
        }
    """)
    model = canonical(path)
    assert operators(model) == ["Add", "Reshape"]
    assert {name: array.tolist() for name, array in weights(model).items()} == {"c": [1, 2, 3], "i": [0, -1]}


def test_number_from_a_static_size_is_folded_to_its_value(build: Build) -> None:
    path = build("""
        net (float[batch, 3] x) => (float[batch, 16] y)
        <float[3, 16] w, int64 last = {-1}>
        { h = MatMul(x, w)  s = Shape(h)  n = Gather(s, last)  f = Cast<to = 1>(n)  r = Sqrt(f)  y = Div(h, r) }
    """)
    model = canonical(path)
    assert operators(model) == ["MatMul", "Shape", "Div"]  # the Shape has a dynamic entry, and now no reader
    assert weights(model)["r"].tolist() == 4.0


def test_dynamic_size_stays_computed(build: Build) -> None:
    path = build("""
        net (float[batch, 6] x) => (float[batch, 2, 3] y)
        <int64 zero = {0}, int64[1] axis = {0}, int64[2] rest = {2, 3}, int64 six = {6}, int64 three = {3}>
        {
            s = Shape(x)  n = Gather(s, zero)  b = Unsqueeze(n, axis)
            two = Div(six, three)  unused = Cast<to = 1>(two)
            t = Concat<axis = 0>(b, rest)  y = Reshape(x, t)
        }
    """)
    assert operators(canonical(path)) == ["Shape", "Gather", "Unsqueeze", "Concat", "Reshape"]


def test_big_arrays_are_left_to_the_nodes_that_compute_them(build: Build) -> None:
    """A folded table of 4,096 numbers would weigh more than its Range."""
    path = build("""
        net (float[batch, 4096] x) => (float[batch, 4096] y)
        <int64 zero = {0}, int64 end = {4096}, int64 small_end = {5}, int64 one = {1}>
        { r = Range(zero, end, one)  f = Cast<to = 1>(r)  a = Add(x, f)
          q = Range(zero, small_end, one)  m = ReduceSum<keepdims = 0>(q)  g = Cast<to = 1>(m)  y = Mul(a, g) }
    """)
    model = canonical(path)
    assert operators(model) == ["Range", "Cast", "Add", "Mul"]
    assert weights(model)["g"].tolist() == 10.0


def test_value_that_is_an_output_is_not_folded(build: Build) -> None:
    path = build("""
        net (float[batch, 3] x) => (float[batch, 3] y, int64 n)
        <int64 last = {-1}>
        { s = Shape(x)  n = Gather(s, last)  c = Constant<value_float = 2.0>()  y = Mul(x, c) }
    """)
    model = canonical(path)
    assert [value.name for value in model.graph.outputs] == ["y", "n"]
    assert operators(model) == ["Shape", "Gather", "Mul"]


def test_fillers_with_several_readers_get_a_copy_each(build: Build) -> None:
    path = build("""
        net (float[batch, 3] x) => (float[batch, 3] y)
        <float[3] zeros = {0, 0, 0}, float[3] half = {0.5, 0.5, 0.5}, float[3] tied = {1, 2, 3}, float one = {1}>
        {
            a = Add(x, zeros)  b = Add(a, zeros)  c = Sub(zeros, b)  d = Mul(c, half)
            e = Mul(d, tied)  f = Mul(e, tied)  g = Mul(f, one)  y = Mul(g, one)
        }
    """)
    found = weights(canonical(path))
    assert set(found) == {"zeros", "zeros/1", "zeros/2", "half", "tied", "one"}
    assert all(not found[name].any() for name in ("zeros", "zeros/1", "zeros/2"))


def test_filler_read_twice_by_one_node_is_split_too(build: Build) -> None:
    path = build("""
        net (float[batch, 3] x) => (float[batch, 3] y)
        <float[3] ones = {1, 1, 1}>
        { [norm] y = LayerNormalization(x, ones, ones) }
    """)
    model = canonical(path)
    (node,) = model.graph
    assert [value.name for value in node.inputs] == ["x", "ones", "ones/1"]


def test_weight_that_may_be_fed_is_left_alone(build: Build) -> None:
    """An initializer that is also a graph input has one name that its user knows."""

    def list_as_input(model: onnx.ModelProto) -> None:
        (zeros,) = model.graph.initializer
        model.graph.input.append(onnx.helper.make_tensor_value_info(zeros.name, zeros.data_type, zeros.dims))

    path = build(
        """
        net (float[batch, 3] x) => (float[batch, 3] y)
        <float[3] zeros = {0, 0, 0}>
        { a = Add(x, zeros)  y = Add(a, zeros) }
        """,
        edit=list_as_input,
    )
    model = open_model(path)
    assert not Canonicalize()(model).modified
    assert list(model.graph.initializers) == ["zeros"]


def test_functions_are_inlined(build: Build) -> None:
    path = build(
        "net (float[batch, 3] x) => (float[batch, 3] y) { y = local.twice(x) }",
        functions='<domain: "local", opset_import: ["" : 17]> twice (t) => (r) { m = Relu(t)  r = Neg(m) }',
        opsets={"local": 1},
    )
    model = canonical(path)
    assert operators(model) == ["Relu", "Neg"]
    assert not model.functions


def test_shapes_hold_for_the_result(zoo_file: Callable[[str], Path]) -> None:
    """The shapes found on the way are those that a fresh inference on the result finds."""
    model = open_model(zoo_file("hf.bert.ts17"))
    _, shapes = canonicalize(model)
    fresh = infer(model)
    named = {value.name for node in model.graph for value in (*node.inputs, *node.outputs) if value is not None}
    assert named <= set(shapes.shapes)
    assert {name: shapes.shapes[name] for name in named} == {name: fresh.shapes[name] for name in named}
    assert shapes.dynamic >= {(name, axis) for name, axis in fresh.dynamic if name in named}
