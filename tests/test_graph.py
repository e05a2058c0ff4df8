"""What depends on what: order, what is dead, and the networkx view."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import pytest

from onnxprune.analysis.inspect import inspect
from onnxprune.errors import ModelError
from onnxprune.model import graph as graphs
from onnxprune.model.file import open_model
from tests.conftest import Build

DIAMOND = """
    net (float[2, 4] x) => (float[2, 4] y)
    <float[4, 4] w, float[4, 4] v, float[4, 4] unread>
    {
        [left] a = MatMul(x, w)
        [right] b = Relu(x)
        [join] y = Add(a, b)
        [waste] c = MatMul(x, v)
        [constant] d = Relu(v)
    }
"""


@pytest.fixture
def diamond(build: Build) -> nx.DiGraph:
    return graphs.view(open_model(build(DIAMOND)))


def test_nodes_are_inputs_weights_operators_and_outputs(diamond: nx.DiGraph) -> None:
    kinds = dict(diamond.nodes(data="kind"))
    assert kinds == {
        "input/x": "input",
        "weight/w": "weight",
        "weight/v": "weight",
        "weight/unread": "weight",
        "left": "operator",
        "right": "operator",
        "join": "operator",
        "waste": "operator",
        "constant": "operator",
        "output/y": "output",
    }
    assert diamond.nodes["left"]["op_type"] == "MatMul"
    assert diamond.nodes["left"]["node"].outputs[0].name == "a"


def test_edges_carry_tensor_names(diamond: nx.DiGraph) -> None:
    assert diamond.edges["weight/w", "left"]["tensors"] == ("w",)
    assert diamond.edges["left", "join"]["tensors"] == ("a",)
    assert diamond.edges["join", "output/y"]["tensors"] == ("y",)


def test_two_tensors_between_the_same_nodes_share_an_edge_and_one_read_twice_is_named_once(build: Build) -> None:
    path = build("""
        net (float[2, 4] x) => (float[2, 2] y)
        { [cut] a, b = Split<axis = 1>(x)  [mul] m = Mul(a, b)  [square] y = Mul(m, m) }
    """)
    graph = graphs.view(open_model(path))
    assert graph.edges["cut", "mul"]["tensors"] == ("a", "b")
    assert graph.edges["mul", "square"]["tensors"] == ("m",)


def test_operators_come_in_topological_order(digits: dict[str, Path]) -> None:
    for path in digits.values():
        model = open_model(path)
        found = graphs.operators(model)
        position = {name: index for index, (name, _) in enumerate(found)}
        assert all(position[a] < position[b] for a, b in graphs.view(model).edges if a in position and b in position)
        assert {node for _, node in found} == set(model.graph)


def test_operators_are_sorted_whatever_the_order_in_the_file(build: Build) -> None:
    model = open_model(build(DIAMOND))
    nodes = list(model.graph)
    model.graph.remove(nodes)
    model.graph.extend(nodes[::-1])
    names = [name for name, _ in graphs.operators(model)]
    assert names.index("join") > max(names.index("left"), names.index("right"))
    assert sorted(names) == ["constant", "join", "left", "right", "waste"]


def test_operators_inside_a_body_come_before_the_node_that_runs_it(build: Build) -> None:
    names = [name for name, _ in graphs.operators(open_model(build(IF)))]
    assert names[0] == "before"
    assert names[-1] == "choose"
    assert len(names) == 7
    assert all(name.startswith("choose/") for name in names[1:-1])


def test_a_circle_is_refused(build: Build) -> None:
    model = open_model(build("net (float[2] x) => (float[2] y) { [a] h = Add(x, x)  [b] y = Relu(h) }"))
    first, second = model.graph
    first.replace_input_with(1, second.outputs[0])
    with pytest.raises(ModelError, match="operator 'a' waits for its own result"):
        graphs.operators(model)


def test_nodes_of_equal_or_no_name_are_told_apart(build: Build) -> None:
    path = build("net (float[2] x) => (float[2] y) { [twin] a = Relu(x)  [twin] b = Relu(a)  y = Relu(b) }")
    assert [name for _, name in graphs.operator_names(open_model(path))] == ["twin", "twin#1", "Relu_2"]


def test_what_computes_on_weights_alone_is_no_activation(build: Build) -> None:
    path = build("""
        net (float[2, 4] x) => (float[2, 4] y)
        <float[4, 4] w, float[4, 4] v>
        { a = MatMul(x, w)  c = Relu(v)  d = Neg(c)  y = MatMul(a, d) }
    """)
    assert inspect(path).activations == {"x", "a", "y"}


def test_model_without_inputs_depends_on_no_data(build: Build) -> None:
    assert inspect(build("net () => (float[4] y) <float[4] w> { y = Relu(w) }")).activations == set()


def test_dead_is_what_no_output_needs(build: Build) -> None:
    model = open_model(build(DIAMOND))
    assert graphs.remove_dead(model)
    assert [node.name for node in model.graph] == ["left", "right", "join"]
    assert list(model.graph.initializers) == ["w"]


IF = """
    net (float[2, 4] x, bool flag) => (float[2, 4] y)
    <float[4, 4] outer>
    {
        [before] h = Relu(x)
        [choose] y = If (flag) <
            then_branch = yes () => (float[2, 4] t) { i = MatMul(h, outer)  t = Relu(i) },
            else_branch = no () => (float[2, 4] e) {
                e = If (flag) <
                    then_branch = deep () => (float[2, 4] d) { d = Neg(x) },
                    else_branch = same () => (float[2, 4] s) { s = Identity(h) }
                >
            }
        >
    }
"""


def test_bodies_read_what_they_capture_at_any_depth(build: Build) -> None:
    model = open_model(build(IF))
    graph = graphs.view(model)
    assert set(graph.predecessors("choose")) == {"before", "weight/outer", "input/x", "input/flag"}
    choose = graph.nodes["choose"]["node"]
    assert {value.name for value in graphs.captured(choose)} == {"h", "outer", "x", "flag"}
    assert graphs.captured(graph.nodes["before"]["node"]) == []
    assert not graphs.remove_dead(model)


def test_exportable_has_plain_attributes_only(diamond: nx.DiGraph) -> None:
    plain = graphs.exportable(diamond, {"a": {"shape": "2x4", "dims": "2, w:4"}})
    assert plain.edges["left", "join"] == {"tensors": "a", "shapes": "2x4", "dims": "2, w:4"}
    assert plain.edges["right", "join"] == {"tensors": "b", "shapes": "?", "dims": "?"}
    assert plain.nodes["left"] == {"kind": "operator", "op_type": "MatMul"}
    assert "<graphml" in "\n".join(nx.generate_graphml(plain))
