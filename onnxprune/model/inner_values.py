"""Values inside the bodies of If, Loop and Scan, as further outputs of the node that runs the body.

A branch that is not taken gives an array without entries; a body that runs again and again gives the values of all
steps, one after the other along the first axis.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.model.graph import captured, subgraphs

Array = npt.NDArray[Any]
# From the main graph to a body: each node, and the body of it that is next.
Way = list[tuple[ir.Node, ir.Graph]]


class InnerName(str):
    """The name of a value as a body sees it, also where the value comes from outside of the body.

    Attributes:
        name: of the value itself.
        body: the body.
    """

    name: str
    body: ir.Graph

    def __new__(cls, name: str, body: ir.Graph) -> InnerName:
        """Names of values are unique in a model, so its first value names a body."""
        found = super().__new__(cls, f"{name} seen by {body[0].outputs[0].name}")
        found.name, found.body = name, body
        return found


def name_seen_by(node: ir.Node, name: str, model: ir.Model) -> str:
    """The name under which a value that a node reads or makes can be asked for: its own, or one inside a body."""
    graph = node.graph
    return InnerName(name, graph) if isinstance(graph, ir.Graph) and graph is not model.graph else name


def own_name(name: str) -> str:
    """The name of the value itself."""
    return name.name if isinstance(name, InnerName) else name


def way_to(model: ir.Model, body: ir.Graph) -> Way:
    """How a body is reached from the main graph; empty for the main graph and for a body of another model."""
    return _way(model.graph, body) or []


def _way(graph: ir.Graph, body: ir.Graph) -> Way | None:
    for node in graph:
        for inner in subgraphs(node):
            further = [] if inner is body else _way(inner, body)
            if further is not None:
                return [(node, inner), *further]
    return None


def can_be_handed_out(way: Way) -> bool:
    """Only the last of the nodes may repeat its body: a stack has as many entries for every step."""
    return not any(body.inputs for _, body in way[:-1])


def repeats(way: Way) -> bool:
    """Does the innermost body run again and again? Branches alone take no inputs."""
    return bool(way) and bool(way[-1][1].inputs)


def node_of(model: ir.Model, name: str) -> ir.Node | None:
    """The node of the main graph that runs the body of an inner name; None for other names."""
    return way_to(model, name.body)[0][0] if isinstance(name, InnerName) else None


def inner_makers(name: InnerName) -> set[ir.Node]:
    """The nodes of its body that a value depends on within one step."""
    named = {value.name: node for node in name.body for value in node.outputs}
    waiting, found = [named.get(name.name)], set[ir.Node]()
    while waiting:
        node = waiting.pop()
        if node is None or node in found or node.graph is not name.body:
            continue
        found.add(node)
        given = [*node.inputs, *captured(node)]
        waiting += [value.producer() for value in given if value is not None]
    return found


def one_after_the_other(name: str, array: Array, model: ir.Model) -> Array:
    """The values of all steps along the first axis, of an array as the node gives it."""
    if not isinstance(name, InnerName) or not array.size or not repeats(way_to(model, name.body)) or array.ndim < 2:
        return array
    return array.reshape(-1, *array.shape[2:])


@contextlib.contextmanager
def handed_out(model: ir.Model, names: Iterable[str], dtypes: Mapping[str, ir.DataType]) -> Iterator[list[ir.Value]]:
    """The model with values inside bodies as outputs of nodes of the main graph, for the length of the block.

    Names of other values are ignored. The outputs are called like the inner names; `dtypes` are those of values by
    their own names. Raises KeyError for a name that the body does not see.
    """
    undo: list[Callable[[], None]] = []
    try:
        inner = [name for name in dict.fromkeys(names) if isinstance(name, InnerName)]
        yield [_hand_out(model, name, dtypes[name.name], undo) for name in inner]
    finally:
        for each in reversed(undo):
            each()


def _hand_out(model: ir.Model, name: InnerName, dtype: ir.DataType, undo: list[Callable[[], None]]) -> ir.Value:
    way = way_to(model, name.body)
    seen = ir.node("Identity", [_value_of(way, name)])
    name.body.append(seen)
    undo.append(lambda: name.body.remove(seen, safe=False))
    value = seen.outputs[0]
    value.dtype = dtype
    for depth in reversed(range(len(way))):
        value.name = f"{name}/{depth}"
        value = _past(*way[depth], value, undo)
    value.name = str(name)
    return value


def _value_of(way: Way, name: InnerName) -> ir.Value:
    """The value that a body sees under a name."""
    inside = [*name.body.inputs, *(value for node in name.body for value in node.outputs)]
    seen = {value.name: value for value in (*captured(way[-1][0]), *inside)}
    return seen[name.name]


def _past(node: ir.Node, body: ir.Graph, value: ir.Value, undo: list[Callable[[], None]]) -> ir.Value:
    """A further output of a node for a value of one of its bodies."""
    for each in subgraphs(node):
        _add_output(each, value if each is body else _without_entries(each, value, undo), undo)
    before, attributes = len(node.outputs), dict(node.attributes)
    for key in ("scan_output_axes", "scan_output_directions"):
        if key in attributes:
            node.attributes[key] = ir.AttrInt64s(key, [*attributes[key].as_ints(), 0])
    node.resize_outputs(before + 1)

    def back() -> None:
        node.resize_outputs(before)
        node.attributes.update(attributes)

    undo.append(back)
    made = node.outputs[-1]
    made.type = value.type
    return made


def _add_output(body: ir.Graph, value: ir.Value, undo: list[Callable[[], None]]) -> None:
    before = len(body.outputs)
    body.outputs.append(value)

    def back() -> None:
        body.outputs[before:] = []

    undo.append(back)


def _without_entries(body: ir.Graph, like: ir.Value, undo: list[Callable[[], None]]) -> ir.Value:
    """An empty array, which this branch gives where another one has a value."""
    assert like.dtype is not None
    empty = ir.tensor(np.zeros(0, like.dtype.numpy()), dtype=like.dtype)
    node = ir.node("Constant", [], {"value": empty})
    node.outputs[0].name, node.outputs[0].dtype = f"{like.name}/none", like.dtype
    body.append(node)
    undo.append(lambda: body.remove(node, safe=False))
    return node.outputs[0]
