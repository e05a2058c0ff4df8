"""What no output depends on goes; what is only captured by a body stays."""

from __future__ import annotations

from onnxprune.model.file import open_model
from onnxprune.passes.remove_dead import RemoveDead
from tests.conftest import Build


def test_dead_chains_and_unread_weights_go(build: Build) -> None:
    model = open_model(
        build("""
            net (float[2, 4] x) => (float[2, 4] y)
            <float[4, 4] w, float[4, 4] v, float[4] unread>
            { y = MatMul(x, w)  a = MatMul(x, v)  b = Relu(a)  c = Neg(b) }
        """)
    )
    assert RemoveDead()(model).modified
    assert [node.op_type for node in model.graph] == ["MatMul"]
    assert list(model.graph.initializers) == ["w"]


def test_node_with_one_live_output_stays(build: Build) -> None:
    path = build("net (float[2, 4] x) => (float[2, 2] y) { y, other = Split<axis = 1>(x)  z = Relu(other) }")
    model = open_model(path)
    assert RemoveDead()(model).modified
    assert [node.op_type for node in model.graph] == ["Split"]


def test_what_a_body_captures_is_alive(build: Build) -> None:
    model = open_model(
        build("""
            net (float[2, 4] x, bool flag) => (float[2, 4] y)
            <float[4] inner>
            {
                h = Relu(x)
                y = If (flag) <
                    then_branch = yes () => (float[2, 4] t) { t = Add(h, inner) },
                    else_branch = no () => (float[2, 4] e) { e = Neg(x) }
                >
            }
        """)
    )
    assert not RemoveDead()(model).modified


def test_unread_inputs_are_the_interface_and_stay(build: Build) -> None:
    model = open_model(build("net (float[2] x, float[3] unread) => (float[2] y) { y = Relu(x) }"))
    assert not RemoveDead()(model).modified
    assert [value.name for value in model.graph.inputs] == ["x", "unread"]


def test_what_a_dead_body_captures_is_dead_too(build: Build) -> None:
    model = open_model(
        build("""
            net (float[2, 4] x, bool flag) => (float[2, 4] y)
            {
                h = Relu(x)  y = Neg(x)
                z = If (flag) <
                    then_branch = yes () => (float[2, 4] t) { t = Neg(h) },
                    else_branch = no () => (float[2, 4] e) { e = Abs(h) }
                >
            }
        """)
    )
    assert RemoveDead()(model).modified
    assert [node.op_type for node in model.graph] == ["Neg"]
