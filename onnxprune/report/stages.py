"""A model drawn small: its layers and what joins them, by stage, with their widths and parameters before and after.

A layer is an operator that reads a weight with two axes or more. Whatever has one input on the way (activations,
normalizations, reshapes) is left out, and where several ways meet a join is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.names import layer_name
from onnxprune.dims import Atom, atoms, kept_size
from onnxprune.model.graph import operator_names, reads
from onnxprune.model.weights import is_weight
from onnxprune.ops.traits import is_parameter


@dataclass
class _Drawing:
    """The parts that were drawn so far.

    Attributes:
        entries: what is drawn, in topological order.
        ends: per value what it comes from, by index of the entry.
        weights: per value that is computed from weights alone, those that it comes from.
        taken: the weights that a layer has counted.
    """

    analysis: Analysis
    kept: Mapping[Atom, int]
    entries: list[dict[str, Any]] = field(default_factory=list)
    ends: dict[ir.Value, tuple[int, ...]] = field(default_factory=dict)
    weights: dict[ir.Value, tuple[str, ...]] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)


def stages_of(analysis: Analysis, kept: Mapping[Atom, int]) -> list[dict[str, Any]]:
    """Inputs, layers, joins and outputs in topological order.

    Each has its `name`, `operator` (None for inputs and outputs), `kind`, `stage` (the most layers and joins that lie
    between it and an input), `from` (the indices of what it reads), `width` (units before and after on the axis that
    its weights or a group share with its result; None where there is none) and `parameters` before and after.
    """
    drawing, model = _Drawing(analysis, kept), analysis.model
    for value in model.graph.inputs:
        if not value.is_initializer():
            drawing.ends[value] = (_draw(drawing, value.name or "", "input", None, ()),)
    drawing.weights = {value: (value.name or "",) for value in model.graph.initializers.values()}
    for node, name in operator_names(model):
        _visit(drawing, name, node)
    for value in model.graph.outputs:
        if value in drawing.ends:
            _draw(drawing, value.name or "", "output", None, drawing.ends[value])
    return drawing.entries


def _visit(drawing: _Drawing, name: str, node: ir.Node) -> None:
    read = list(reads(node))
    sources = _sources(drawing, read)
    weights = _unique(weight for value in read for weight in drawing.weights.get(value, ()))
    if not sources:
        drawing.weights.update(dict.fromkeys(node.outputs, weights))
        return
    if any(_is_matrix(drawing.analysis, weight) for weight in weights):
        sources = (_draw(drawing, name, "layer", node, sources, weights),)
        drawing.entries[-1]["name"] = layer_name(node, drawing.analysis.activations) or name
    elif len(sources) > 1:
        sources = (_draw(drawing, name, "join", node, sources, weights),)
    drawing.ends.update(dict.fromkeys(node.outputs, sources))


def _sources(drawing: _Drawing, read: Iterable[ir.Value]) -> tuple[int, ...]:
    """The drawn entries that a node reads; sizes and masks do not count where there is something else."""
    types = drawing.analysis.shapes.dtypes
    real: list[int] = []
    others: list[int] = []
    for value in read:
        dtype = types.get(value.name or "")
        is_real = dtype is not None and dtype.is_floating_point()
        (real if is_real else others).extend(drawing.ends.get(value, ()))
    return _unique(real) or _unique(others)


def _unique(items: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(items))


def _is_matrix(analysis: Analysis, weight: str) -> bool:
    value = analysis.model.graph.initializers.get(weight)
    shape = analysis.shapes.shapes.get(weight, ())
    return value is not None and is_weight(value) and sum(size > 1 for size in shape) > 1


def _draw(
    drawing: _Drawing, name: str, kind: str, node: ir.Node | None, sources: Sequence[int], weights: Sequence[str] = ()
) -> int:
    """The index of a new entry."""
    stages = [drawing.entries[before]["stage"] for before in sources]
    drawing.entries.append(
        {
            "name": name,
            "operator": None if node is None else node.op_type,
            "kind": kind,
            "from": list(sources),
            "width": None if node is None else _width(drawing, node, weights),
            "parameters": _parameters(drawing, weights),
            "stage": max(stages, default=-1) + 1,
        }
    )
    return len(drawing.entries) - 1


def _width(drawing: _Drawing, node: ir.Node, weights: Sequence[str]) -> list[int] | None:
    """Before and after of the last axis of the result that is an axis of the weights or holds a group."""
    dims = drawing.analysis.dims
    own = {atom for weight in weights for dim in dims.get(weight, ()) for atom in atoms(dim) if atom.size > 1}
    wanted = own or set(drawing.analysis.names())
    found = [dim for dim in dims.get(node.outputs[0].name or "", ()) if wanted & set(atoms(dim))]
    return [found[-1].size, kept_size(found[-1], drawing.kept)] if found else None


def _parameters(drawing: _Drawing, weights: Sequence[str]) -> list[int]:
    """Entries of the weights that no layer before has counted."""
    values = drawing.analysis.model.graph.initializers
    new = [name for name in weights if name not in drawing.taken and name in values and is_parameter(values[name])]
    drawing.taken.update(new)
    shapes = [drawing.analysis.dims.get(name, ()) for name in new]
    before = sum(prod(dim.size for dim in dims) for dims in shapes)
    return [before, sum(prod(kept_size(dim, drawing.kept) for dim in dims) for dims in shapes)]
