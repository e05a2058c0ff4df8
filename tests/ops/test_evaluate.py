"""Shape arithmetic in numpy against ONNX Runtime: values, shapes and types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxprune.ops.base import EVALUATORS
from onnxprune.ops.evaluate import by_reference, shape_of
from tests.rule_oracle import FAR, Array, Case, Form, Node, SampleDraw, case, declared, ints

A, B = ints(7, -7, 2, 1), ints(2, 2, -3, 5)
GRID = np.arange(24).reshape(2, 3, 4)
F = np.array([0.25, 4.0, 2.5], np.float32)
FLAGS = np.array([True, False, True, True])

CASES: list[tuple[str, int, Case]] = [
    *((name, 13, case(a=A, b=B)) for name in ("Add", "Sub", "Mul", "Div", "Equal", "Less", "Greater", "Min", "Max")),
    *((name, 16, case(a=A, b=B)) for name in ("LessOrEqual", "GreaterOrEqual")),
    *((name, 13, case(a=FLAGS, b=~FLAGS[:1])) for name in ("And", "Or")),
    *((name, 13, case(a=F)) for name in ("Neg", "Sqrt", "Floor", "Ceil", "Abs")),
    ("Not", 13, case(a=FLAGS)),
    ("Min", 13, case(a=A, b=B, c=ints(0))),
    ("Div", 13, case(a=F, b=F[:1])),
    ("Identity", 13, case(a=A)),
    ("Cast", 13, case(a=F, to=onnx.TensorProto.INT64)),
    ("Cast", 13, case(a=A, to=onnx.TensorProto.FLOAT)),
    ("Cast", 13, case(a=A, to=onnx.TensorProto.BOOL)),
    ("Gather", 13, case(a=A, i=np.array(-1))),
    ("Gather", 13, case(a=GRID, i=np.array([[0, 2], [1, -1]]), axis=1)),
    ("Concat", 13, case(a=A, b=B, axis=0)),
    ("Concat", 13, case(a=GRID, b=GRID, axis=-1)),
    ("Unsqueeze", 11, case(a=A, axes=[0, 2])),
    ("Unsqueeze", 13, case(a=A, axes=ints(-1, 0))),
    ("Squeeze", 11, case(a=A.reshape(1, 4, 1), axes=[0])),
    ("Squeeze", 13, case(a=A.reshape(1, 4, 1), axes=ints(-1))),
    ("Squeeze", 13, case(a=A.reshape(1, 4, 1))),
    ("Reshape", 13, case(a=GRID, shape=ints(0, -1, 2))),
    ("Slice", 9, case(a=GRID, starts=[1, -2], ends=[FAR, -1], axes=[1, 2])),
    ("Slice", 9, case(a=GRID, starts=[0], ends=[1])),
    ("Slice", 13, case(a=GRID, starts=ints(-1), ends=ints(-FAR), axes=ints(-1), steps=ints(-2))),
    ("Slice", 13, case(a=GRID, starts=ints(FAR, 0), ends=ints(0, FAR), axes=ints(1, 2), steps=ints(-1, 3))),
    ("Slice", 13, case(a=GRID, starts=ints(2), ends=ints(1), axes=None, steps=ints(1))),
    ("Where", 13, case(a=FLAGS, b=A, c=ints(9))),
    ("Range", 13, case(a=np.array(2), b=np.array(-5), c=np.array(-3))),
    ("Range", 13, case(a=np.float32(0), b=np.float32(1), c=np.float32(0.25))),
    ("Expand", 13, case(a=A.reshape(4, 1), shape=ints(2, 1, 3))),
    ("ConstantOfShape", 13, case(a=ints(2, 0, 3))),
    ("ConstantOfShape", 13, case(a=ints(2), value=onnx.numpy_helper.from_array(ints(-1)))),
    ("Transpose", 13, case(a=GRID)),
    ("Transpose", 13, case(a=GRID, perm=[2, 0, 1])),
]


def _run(name: str, opset: int, drawn: Case) -> tuple[ir.Node, list[Array | None], list[Array]]:
    """The node, its inputs, and what ONNX Runtime makes of them."""

    def build(_: SampleDraw) -> Case:
        return drawn

    inputs = {key: np.asarray(value) for key, value in drawn.items() if isinstance(value, np.ndarray | np.generic)}
    given: dict[str, Array | None] = {key: inputs.get(key) for key in drawn if key in inputs or drawn[key] is None}
    attributes = {key: value for key, value in drawn.items() if key not in given}
    sample = declared(("", name), build, fed=" ".join(inputs))
    node = Node(Form(sample, opset), given, attributes)
    proto = node.proto(given)
    return ir.from_proto(proto).graph.node("node"), list(given.values()), node.run(proto, given)


def _same(found: Sequence[Any], expected: Sequence[Array]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert np.asarray(one).dtype == other.dtype
        np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize(("name", "opset", "drawn"), CASES, ids=[f"{name}-{i}" for i, (name, *_) in enumerate(CASES)])
def test_the_table_agrees_with_onnxruntime(name: str, opset: int, drawn: Case) -> None:
    node, inputs, expected = _run(name, opset, drawn)
    _same([EVALUATORS["", name](node, *inputs)], expected)


def test_every_entry_of_the_table_is_tried() -> None:
    assert {name for domain, name in EVALUATORS if domain == ""} == {name for name, *_ in CASES}


def test_what_the_table_lacks_goes_through_the_reference() -> None:
    node, inputs, expected = _run("ReduceProd", 13, case(a=A, axes=[0]))
    _same(by_reference(node, inputs, {"": 13}), expected)


@pytest.mark.parametrize(
    ("name", "opset", "drawn"),
    [("Shape", 13, case(a=GRID)), ("Shape", 15, case(a=GRID, start=-2, end=3)), ("Size", 13, case(a=GRID))],
)
def test_shapes_need_no_values(name: str, opset: int, drawn: Case) -> None:
    node, _, expected = _run(name, opset, drawn)
    _same([shape_of(node, GRID.shape)], expected)
    assert shape_of(_run("Abs", 13, case(a=F))[0], F.shape) is None
