"""A model drawn small: its layers and what joins them, by stage, with their widths and parameters before and after.

A layer is an operator that reads a weight with two axes or more. Whatever has one input on the way (activations,
normalizations, reshapes) is left out, and where several ways meet stands a join.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import networkx as nx

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.names import layer_name
from onnxprune.dims import Atom, atoms, kept_size
from onnxprune.model import graph as graphs
from onnxprune.model.weights import is_parameter


@dataclass
class _Drawing:
    """What has been drawn so far.

    Attributes:
        entries: what is drawn, in topological order.
        ends: per node of the graph what its result comes from, by index of the entry.
        weights: per node that is computed from weights alone, those that it reads and no layer has taken yet.
    """

    analysis: Analysis
    kept: Mapping[Atom, int]
    entries: list[dict[str, Any]] = field(default_factory=list)
    ends: dict[str, tuple[int, ...]] = field(default_factory=dict)
    weights: dict[str, tuple[str, ...]] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)


def stages_of(analysis: Analysis, kept: Mapping[Atom, int]) -> list[dict[str, Any]]:
    """Inputs, layers, joins and outputs in topological order.

    Each has its `name`, `operator` (None for inputs and outputs), `kind`, `stage` (the most layers and joins that lie
    between it and an input), `from` (the indices of what it reads), `width` (units before and after on the axis that
    its weights or a group share with its result; None where there is none) and `parameters` before and after.
    """
    drawing = _Drawing(analysis, kept)
    for name in nx.lexicographical_topological_sort(analysis.graph, _order(analysis)):
        _visit(drawing, name, analysis.graph.nodes[name])
    reduced = nx.DiGraph()
    for index, entry in enumerate(drawing.entries):
        reduced.add_node(str(index), kind="operator")
        reduced.add_edges_from((str(before), str(index)) for before in entry["from"])
    stages = graphs.stages(reduced)
    return [{**entry, "stage": stages[str(index)]} for index, entry in enumerate(drawing.entries)]


def _order(analysis: Analysis) -> Any:
    """Ties are broken as the file orders its nodes."""
    place = {name: index for index, name in enumerate(analysis.graph)}
    return place.__getitem__


def _visit(drawing: _Drawing, name: str, node: Mapping[str, Any]) -> None:
    kind = node["kind"]
    if kind == "weight":
        drawing.weights[name] = (name.removeprefix("weight/"),)
    elif kind == "input":
        _draw(drawing, name, "input", None, ())
    elif kind == "output":
        sources = _sources(drawing, name)
        if sources:
            _draw(drawing, name, "output", None, sources)
    else:
        _visit_operator(drawing, name, node)


def _visit_operator(drawing: _Drawing, name: str, node: Mapping[str, Any]) -> None:
    sources = _sources(drawing, name)
    before = drawing.analysis.graph.predecessors(name)
    weights = _unique(weight for each in before for weight in drawing.weights.get(each, ()))
    if not sources:
        drawing.weights[name] = weights
    elif any(_is_matrix(drawing.analysis, weight) for weight in weights):
        _draw(drawing, name, "layer", node, sources, weights)
        drawing.entries[-1]["name"] = layer_name(node["node"], drawing.analysis.activations) or name
    elif len(sources) > 1:
        _draw(drawing, name, "join", node, sources, weights)
    else:
        drawing.ends[name] = sources


def _sources(drawing: _Drawing, name: str) -> tuple[int, ...]:
    """The drawn entries that a node reads; sizes and masks do not count where there is something else."""
    graph, types = drawing.analysis.graph, drawing.analysis.shapes.dtypes
    real: list[int] = []
    others: list[int] = []
    for before in graph.predecessors(name):
        tensors = graph.edges[before, name]["tensors"]
        is_real = any(types[tensor].is_floating_point() for tensor in tensors if tensor in types)
        (real if is_real else others).extend(drawing.ends.get(before, ()))
    return _unique(real) or _unique(others)


def _unique(items: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(items))


def _is_matrix(analysis: Analysis, weight: str) -> bool:
    value = analysis.model.graph.initializers.get(weight)
    shape = analysis.shapes.shapes.get(weight, ())
    return value is not None and is_parameter(value) and sum(size > 1 for size in shape) > 1


def _draw(
    drawing: _Drawing,
    name: str,
    kind: str,
    node: Mapping[str, Any] | None,
    sources: tuple[int, ...],
    weights: tuple[str, ...] = (),
) -> None:
    drawing.ends[name] = (len(drawing.entries),)
    drawing.entries.append(
        {
            "name": name.partition("/")[2] if node is None else name,
            "operator": None if node is None else node["op_type"],
            "kind": kind,
            "from": list(sources),
            "width": None if node is None else _width(drawing, node, weights),
            "parameters": _parameters(drawing, weights),
        }
    )


def _width(drawing: _Drawing, node: Mapping[str, Any], weights: tuple[str, ...]) -> list[int] | None:
    """Before and after of the last axis of the result that is an axis of the weights or holds a group."""
    dims = drawing.analysis.dims
    own = {atom for weight in weights for dim in dims.get(weight, ()) for atom in atoms(dim) if atom.size > 1}
    wanted = own or set(drawing.analysis.names())
    result = node["node"].outputs[0].name or ""
    found = [dim for dim in dims.get(result, ()) if wanted & set(atoms(dim))]
    return [found[-1].size, kept_size(found[-1], drawing.kept)] if found else None


def _parameters(drawing: _Drawing, weights: tuple[str, ...]) -> list[int]:
    """Entries of the weights that no layer before has counted."""
    values = drawing.analysis.model.graph.initializers
    new = [name for name in weights if name not in drawing.taken and name in values and is_parameter(values[name])]
    drawing.taken.update(new)
    shapes = [drawing.analysis.dims.get(name, ()) for name in new]
    before = sum(prod(dim.size for dim in dims) for dims in shapes)
    return [before, sum(prod(kept_size(dim, drawing.kept) for dim in dims) for dims in shapes)]
