"""Equal weights are stored once."""

from __future__ import annotations

import onnx_ir as ir

from onnxprune.model.file import open_model
from onnxprune.passes import share_initializers
from onnxprune.passes.canonicalize import Canonicalize
from onnxprune.passes.share_initializers import ShareInitializers
from tests.conftest import Build

EQUAL = """
    net (float[2, 3] x) => (float[2, 3] y)
    <float[3] a = {1, 2, 3}, float[3] b = {1, 2, 3}, float[3] other = {1, 2, 4}, float[1, 3] row = {1, 2, 3},
     double[3] wide = {1, 2, 3}>
    {
        p = Add(x, a)  q = Add(p, b)  r = Add(q, other)  s = Add(r, row)
        n = Cast<to = 1>(wide)  y = Add(s, n)
    }
"""


def test_equal_type_shape_and_content_are_merged(build: Build) -> None:
    model = open_model(build(EQUAL))
    assert ShareInitializers()(model).modified
    assert set(model.graph.initializers) == {"a", "other", "row", "wide"}
    assert [node.inputs[1].name for node in model.graph if node.op_type == "Add"] == ["a", "a", "other", "row", "n"]


def test_big_weights_are_not_read_to_compare_them(build: Build, monkeypatch) -> None:
    monkeypatch.setattr(share_initializers, "_SMALL", 4)
    assert not ShareInitializers()(open_model(build(EQUAL))).modified


def test_only_weights_of_one_type_and_shape_are_read(build: Build) -> None:
    """What was sliced is computed at every reading."""
    model = open_model(build(EQUAL))
    read: list[str] = []
    for value in model.graph.initializers.values():
        tensor = value.const_value
        value.const_value = ir.LazyTensor(
            lambda tensor=tensor: read.append(tensor.name) or tensor,
            dtype=tensor.dtype,
            shape=tensor.shape,
            name=tensor.name,
        )
    assert ShareInitializers()(model).modified
    assert sorted(read) == ["a", "b", "other"]


def test_undoes_the_copies_of_canonicalize(build: Build) -> None:
    path = build("""
        net (float[2, 3] x) => (float[2, 3] y)
        <float[3] zeros = {0, 0, 0}>
        { a = Add(x, zeros)  b = Add(a, zeros)  y = Add(b, zeros) }
    """)
    model = open_model(path)
    Canonicalize()(model)
    assert len(model.graph.initializers) == 3
    ShareInitializers()(model)
    assert list(model.graph.initializers) == ["zeros"]


def test_negative_zero_is_not_zero(build: Build) -> None:
    """1 / x tells them apart, so they are compared by their bytes."""
    path = build(
        """
        net (float[2, 3] x) => (float[2, 3] y)
        <float[3] plus, float[3] minus>
        { a = Add(x, plus)  y = Add(a, minus) }
    """,
        plus=[0.0, 0.0, 0.0],
        minus=[-0.0, -0.0, -0.0],
    )
    assert not ShareInitializers()(open_model(path)).modified
