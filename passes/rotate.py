"""Units that only linear layers read and make, written along other axes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.analysis.groups import Analysis, Group
from onnxprune.analysis.layers import Layer, bias_of, held_bias, layers, plain_matrix
from onnxprune.analysis.splittable import splittable
from onnxprune.dims import Atom, resolve
from onnxprune.ops.traits import adds, keeps_axes, looks_up_rows
from onnxprune.passes.base import PassResult
from onnxprune.passes.write_back import set_bias, set_matrix

Matrix = npt.NDArray[np.float64]
# Around a value: tables that it is looked up in, nodes of layers that write it, and of layers that read it.
Touching = tuple[list[ir.Value], list[ir.Node], list[ir.Node]]


@dataclass(frozen=True)
class Stream:
    """A group whose units nothing nonlinear touches between what makes them and the layers that read them.

    They are looked up in tables or written by layers, moved about, and added to each other, as along the bottlenecks of
    inverted residuals.

    Attributes:
        group: the units.
        tables: initializers [entries, units] that they come from.
        writers: the layers that they come from.
        readers: the layers that read them, and them alone.
    """

    group: Group
    tables: tuple[ir.Value, ...]
    writers: tuple[Layer, ...]
    readers: tuple[Layer, ...]


def streams(analysis: Analysis) -> Iterator[Stream]:
    """The groups of a model whose axes can be chosen anew."""
    known = _Touched(analysis)
    values = {value.name: value for node in analysis.model.graph for value in node.outputs}
    for group in analysis.groups:
        holding = [name for name in analysis.activations if _axes(analysis, name, group.atom) is not None]
        found = [known.around(values.get(name), group) for name in holding]
        if not found or any(each is None for each in found):
            continue
        touching = [each for each in found if each is not None]
        tables = tuple(dict.fromkeys(table for made, _, _ in touching for table in made))
        writers = known.layers_at(node for _, nodes, _ in touching for node in nodes)
        readers = known.layers_at(node for _, _, nodes in touching for node in nodes)
        held = {place.tensor for place in group.occurrences}
        written = {table.name for table in tables} | {layer.weight for layer in (*writers, *readers)}
        written |= {bias.name for layer in writers if (bias := held_bias(layer)) is not None}
        if (tables or writers) and readers and held == written:
            yield Stream(group, tables, writers, readers)


def _axes(analysis: Analysis, name: str, atom: Atom) -> int | None:
    """The axis of a value that the units lie along; None where they are not in it."""
    dims = [resolve(dim) for dim in analysis.dims.get(name, ())]
    return next((axis for axis, dim in enumerate(dims) if dim is atom), None)


class _Touched:
    """The layers of a model that can be written for other axes, by their nodes and by the Adds of their biases."""

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self.by_node = {layer.node: layer for layer in layers(analysis, hidden=True) if splittable(layer)}
        self._by_add = {layer.add[0]: layer for layer in self.by_node.values() if layer.add}

    def layers_at(self, nodes: Iterable[ir.Node]) -> tuple[Layer, ...]:
        """The layers of these nodes, each once."""
        return tuple(self.by_node[node] for node in dict.fromkeys(nodes))

    def around(self, value: ir.Value | None, group: Group) -> Touching | None:
        """Tables that a value is looked up in, layers that write it and that read it; None where else touches it."""
        node = None if value is None else value.producer()
        if value is None or node is None or value.is_graph_output():
            return None
        made = self._made(node, group)
        readers = [reader for reader, slot in value.uses() if slot == 0 and reader in self.by_node]
        axes = {self.by_node[reader].form.axis for reader in readers}
        own = self.by_node.get(node)
        others = [
            reader
            for reader, slot in value.uses()
            if not (slot == 0 and reader in self.by_node) and not (own is not None and self._by_add.get(reader) is own)
        ]
        if made is None or not axes <= {_axes(self._analysis, value.name or "", group.atom)}:
            return None
        if not all(keeps_axes(reader) or self._is_sum(reader, group) for reader in others):
            return None
        return *made, readers

    def _made(self, node: ir.Node, group: Group) -> tuple[list[ir.Value], list[ir.Node]] | None:
        """The table or the layer that a node's result comes from, if it is one; None where it is anything else."""
        writer = self.by_node.get(node) or self._by_add.get(node)
        if looks_up_rows(node):
            table = node.inputs[0]
            if table is None or table.const_value is None or len(list(table.uses())) > 1 or table.is_graph_input():
                return None
            return [table], []
        if writer is not None:
            return ([], [writer.node]) if self._writes(writer, group) else None
        return ([], []) if keeps_axes(node) or self._is_sum(node, group) else None

    def _writes(self, layer: Layer, group: Group) -> bool:
        """Are the units all that a layer gives, and is its bias its own?"""
        bias = held_bias(layer)
        alone = bias is None or (len(list(bias.uses())) == 1 and not bias.is_graph_input())
        whole = layer.form.hidden is None and _axes(self._analysis, layer.y, group.atom) == layer.form.out_axis
        return alone and whole and layer.norm is None

    def _is_sum(self, node: ir.Node, group: Group) -> bool:
        """Does it add up two values of the same shape that hold the units?"""
        if not adds(node) or node in self._by_add:
            return False
        names = [value.name or "" for value in (*node.inputs, *node.outputs) if value is not None]
        shapes = {self._analysis.shapes.shapes.get(name) for name in names}
        along = {
            _axes(self._analysis, name, group.atom) if name in self._analysis.activations else None for name in names
        }
        return len(shapes) == 1 and len(along) == 1 and None not in along


@dataclass(frozen=True)
class RotateStreams:
    """Write the units of linear streams along other axes.

    Before:  ids ── Gather(E) ── Conv(w) ── y               x ── Conv(v, b) ──── Conv(w) ── y
    After:   ids ── Gather(E T) ── Conv(T^-1 w) ── y        x ── Conv(v T, b T) ── Conv(T^-1 w) ── y

    T is an invertible matrix of the units, like principal axes.

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
            for layer in stream.writers:
                set_matrix(model, layer, plain_matrix(layer) @ axes, self.analysis)
                if held_bias(layer) is not None:
                    set_bias(model, layer, bias_of(layer, len(axes)) @ axes, self.analysis)
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
