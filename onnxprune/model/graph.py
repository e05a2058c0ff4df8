"""Dependencies: the order of the operators, what they read, what is dead; and all of it as a networkx graph.

The graph has one node per operator, graph input, weight and graph output, and one edge per pair that a tensor connects.
It is made for who looks at it (`analysis.graph`, `inspect --graph`), from the same names and the same `reads` that the
analysis walks on: loading networkx takes longer than analysing most models.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxprune.errors import ModelError

if TYPE_CHECKING:
    import networkx as nx


def view(model: ir.Model) -> nx.DiGraph:
    """Build the DiGraph of a model.

    Node attributes: `kind` ("operator", "input", "weight", "output"), `op_type` and `node` (the ir.Node) for operators.
    Edge attribute: `tensors`, the names of the values that flow along it. Operators read values captured by their
    subgraphs like any other input.
    """
    import networkx as nx

    graph = nx.DiGraph()
    source: dict[ir.Value, str] = {}
    for value in model.graph.inputs:
        if value.name not in model.graph.initializers:
            source[value] = f"input/{value.name}"
            graph.add_node(source[value], kind="input")
    for value in model.graph.initializers.values():
        source[value] = f"weight/{value.name}"
        graph.add_node(source[value], kind="weight")
    for node, name in operator_names(model):
        graph.add_node(name, kind="operator", op_type=node.op_type, node=node)
        for value in reads(node):
            if value in source:
                _connect(graph, source[value], name, value)
        source.update(dict.fromkeys(node.outputs, name))
    for value in model.graph.outputs:
        graph.add_node(f"output/{value.name}", kind="output")
        if value in source:
            _connect(graph, source[value], f"output/{value.name}", value)
    return graph


@contextlib.contextmanager
def with_outputs(model: ir.Model, names: Iterable[str]) -> Iterator[ir.Model]:
    """The model with these values of the main graph as further outputs, for the length of the block."""
    values = {value.name: value for node in model.graph for value in node.outputs}
    extra = [values[name] for name in names if name in values and not values[name].is_graph_output()]
    count = len(model.graph.outputs)
    model.graph.outputs.extend(extra)
    try:
        yield model
    finally:
        model.graph.outputs[count:] = []  # unlike del, this tells the values


def _connect(graph: nx.DiGraph, start: str, end: str, value: ir.Value) -> None:
    known = graph.edges[start, end]["tensors"] if graph.has_edge(start, end) else ()
    if value.name not in known:
        graph.add_edge(start, end, tensors=(*known, value.name))


def operator_names(model: ir.Model) -> Iterator[tuple[ir.Node, str]]:
    """Each node of the main graph with a name of its own: the one in the file where that is unique."""
    taken: set[str] = set()
    for index, node in enumerate(model.graph):
        name = node.name or f"{node.op_type}_{index}"
        if name in taken:
            name = f"{name}#{index}"
        taken.add(name)
        yield node, name


def reads(node: ir.Node) -> Iterator[ir.Value]:
    """The values that a node reads: its inputs, then what the bodies inside it capture from outside."""
    yield from (value for value in node.inputs if value is not None)
    yield from captured(node)


def captured(node: ir.Node) -> list[ir.Value]:
    """The outer values that the subgraphs of a node (If, Loop, Scan) read, each once."""
    bodies = list(subgraphs(node))
    if not bodies:
        return []
    inside: set[ir.Value] = set()
    read: dict[ir.Value, None] = {}
    for body in bodies:
        for inner in ir.traversal.RecursiveGraphIterator(body):
            inside.update(inner.outputs)
            read.update(dict.fromkeys(value for value in inner.inputs if value is not None))
            for nested in subgraphs(inner):
                inside.update((*nested.inputs, *nested.initializers.values()))
                read.update(dict.fromkeys(nested.outputs))
        inside.update((*body.inputs, *body.initializers.values()))
        read.update(dict.fromkeys(body.outputs))
    return [value for value in read if value not in inside]


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    """The bodies among the attributes of a node."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def operators(model: ir.Model) -> list[tuple[str, ir.Node]]:
    """Name and node of every operator in topological order, those inside bodies before the node that runs them.

    An operator comes when the last thing that it reads has come, inputs and weights first (Kahn 1962, "Topological
    sorting of large networks").
    """
    readers: dict[ir.Node | ir.Value, list[ir.Node]] = {}
    missing: dict[ir.Node, int] = {}
    for node in model.graph:
        sources = {value.producer() or value for value in reads(node)}
        missing[node] = len(sources)
        for source in sources:
            readers.setdefault(source, []).append(node)
    given = [value for value in model.graph.inputs if not value.is_initializer()]
    given += [*model.graph.initializers.values(), *(source for source in readers if isinstance(source, ir.Value))]
    queue: list[ir.Node | ir.Value] = [*dict.fromkeys(given), *(node for node in model.graph if not missing[node])]
    for source in queue:  # grows on the way
        for reader in readers.get(source, ()):
            missing[reader] -= 1
            if not missing[reader]:
                queue.append(reader)
    if any(missing.values()):
        stuck = next(node for node, count in missing.items() if count)
        raise ModelError(f"operator '{stuck.name or stuck.op_type}' waits for its own result: the graph has a circle")
    names = dict(operator_names(model))
    return [inner for node in queue if isinstance(node, ir.Node) for inner in _with_bodies(names[node], node)]


def _with_bodies(name: str, node: ir.Node) -> Iterator[tuple[str, ir.Node]]:
    for body in subgraphs(node):
        for index, inner in enumerate(body):
            yield from _with_bodies(f"{name}/{inner.name or f'{inner.op_type}_{index}'}", inner)
    yield name, node


def exportable(graph: nx.DiGraph, edges: dict[str, dict[str, Any]]) -> nx.DiGraph:
    """A copy for GraphML or JSON: plain attributes only, `edges[tensor]` on the edges that carry the tensor."""
    plain = type(graph)()
    for name, data in graph.nodes(data=True):
        plain.add_node(name, kind=data["kind"], op_type=data.get("op_type", ""))
    for start, end, tensors in graph.edges(data="tensors"):
        described = [edges.get(tensor, {}) for tensor in tensors]
        plain.add_edge(
            start,
            end,
            tensors=" | ".join(tensors),
            shapes=" | ".join(str(entry.get("shape", "?")) for entry in described),
            dims=" | ".join(str(entry.get("dims", "?")) for entry in described),
        )
    return plain


def remove_dead(model: ir.Model) -> bool:
    """Remove operators that no graph output depends on, and weights that nothing reads; were there any?

    `onnx_ir.passes.common.RemoveUnusedNodesPass` also changes operators that stay (it drops optional outputs and the
    training mode of a normalization, without saying so in `modified`) and keeps what a dead body captures.
    """
    needed: set[ir.Value] = set()
    waiting = list(model.graph.outputs)
    while waiting:
        value = waiting.pop()
        maker = value.producer()
        if value not in needed and maker is not None:
            waiting.extend(reads(maker))
        needed.add(value)
    operators = [node for node in model.graph if needed.isdisjoint(node.outputs)]
    weights = [
        value for value in model.graph.initializers.values() if value not in needed and not value.is_graph_input()
    ]
    model.graph.remove(operators, safe=False)
    for value in weights:
        del model.graph.initializers[value.name or ""]
    return bool(operators or weights)
