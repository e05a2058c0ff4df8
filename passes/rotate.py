"""Units that only linear layers read and make, written along other axes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.analysis.groups import Analysis, Group
from onnxprune.analysis.layers import Layer, layers, plain_matrix
from onnxprune.analysis.splittable import splittable
from onnxprune.dims import Atom, resolve
from onnxprune.ops.traits import keeps_axes, looks_up_rows
from onnxprune.passes.base import PassResult
from onnxprune.passes.write_back import set_matrix

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Stream:
    """A group whose units are looked up in tables, moved about, and read by layers: nothing nonlinear in between.

    Attributes:
        group: the units.
        tables: initializers [entries, units] that they come from.
        readers: the layers that read them, and them alone.
    """

    group: Group
    tables: tuple[ir.Value, ...]
    readers: tuple[Layer, ...]


def streams(analysis: Analysis) -> Iterator[Stream]:
    """The groups of a model whose axes can be chosen anew."""
    by_node = {layer.node: layer for layer in layers(analysis, hidden=True) if splittable(layer)}
    values = {value.name: value for node in analysis.model.graph for value in node.outputs}
    for group in analysis.groups:
        holding = [name for name in analysis.activations if _axes(analysis, name, group.atom) is not None]
        found = [_around(values.get(name), analysis, group, by_node) for name in holding]
        if not found or any(each is None for each in found):
            continue
        tables = dict.fromkeys(table for each in found if each for table in each[0])
        readers = dict.fromkeys(node for each in found if each for node in each[1])
        held = {place.tensor for place in group.occurrences}
        written = {table.name for table in tables} | {by_node[node].weight for node in readers}
        if tables and readers and held == written:
            yield Stream(group, tuple(tables), tuple(by_node[node] for node in readers))


def _axes(analysis: Analysis, name: str, atom: Atom) -> int | None:
    """The axis of a value that the units lie along; None where they are not in it."""
    dims = [resolve(dim) for dim in analysis.dims.get(name, ())]
    return next((axis for axis, dim in enumerate(dims) if dim is atom), None)


def _around(
    value: ir.Value | None, analysis: Analysis, group: Group, by_node: Mapping[ir.Node, Layer]
) -> tuple[list[ir.Value], list[ir.Node]] | None:
    """The tables that a value is looked up in, and the layers that read it; None where anything else touches it."""
    node = None if value is None else value.producer()
    if value is None or node is None or value.is_graph_output():
        return None
    tables, readers = [], []
    if looks_up_rows(node):
        table = node.inputs[0]
        if table is None or table.const_value is None or len(list(table.uses())) > 1 or table.is_graph_input():
            return None
        tables.append(table)
    elif not keeps_axes(node):
        return None
    for reader, slot in value.uses():
        layer = by_node.get(reader)
        if layer is not None and slot == 0:
            if _axes(analysis, value.name or "", group.atom) != layer.form.axis:
                return None
            readers.append(reader)
        elif not keeps_axes(reader):
            return None
    return tables, readers


@dataclass(frozen=True)
class RotateStreams:
    """Write the units of linear streams along other axes.

    Before:  ids ── Gather(E) ── Conv(w) ── y
    After:   ids ── Gather(E T) ── Conv(T^-1 w) ── y       T: an invertible matrix of the units, like principal axes

    The result is the same up to rounding. Along principal axes few units hold most of what the readers make of them, so
    more of them can be removed (Ashkboos et al. 2024, "SliceGPT", section 3, there of the residual stream between
    RMSNorms). `axes` has T by the group's id: float64 [units, units].
    """

    analysis: Analysis
    axes: Mapping[str, Matrix]

    def __call__(self, model: ir.Model) -> PassResult:
        """Apply in place."""
        if model is not self.analysis.model:
            raise ValueError("the model is not the one of the analysis")
        found = [stream for stream in streams(self.analysis) if stream.group.id in self.axes]
        for stream in found:
            axes = self.axes[stream.group.id]
            for table in stream.tables:
                _store(table, table.const_value.numpy().astype(np.float64) @ axes)  # type: ignore[union-attr]
            for layer in stream.readers:
                set_matrix(model, layer, read_along(layer, np.linalg.inv(axes).astype(np.float64)), self.analysis)
        return PassResult(model, bool(found))


def read_along(layer: Layer, back: Matrix) -> Matrix:
    """The matrix of a layer [1, features, outputs] with its input channels mixed by `back` [channels, channels]."""
    matrix = plain_matrix(layer)[0]
    mixed: Matrix = (back @ matrix.reshape(len(back), -1)).reshape(1, *matrix.shape)
    return mixed


def _store(value: ir.Value, array: Matrix) -> None:
    assert value.dtype is not None
    stored = np.ascontiguousarray(array.astype(value.dtype.numpy()))
    value.const_value = ir.Tensor(stored, dtype=value.dtype, name=value.name)
