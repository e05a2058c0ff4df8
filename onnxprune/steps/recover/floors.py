"""How low a layer's outputs may be where lower makes no difference: in front of a Relu, and of a maximum of branches.

    y ── Squeeze ── Add(bias) ── Relu         anything below -bias will do where the original gives less than that
    y ── Unsqueeze ── Concat ── ReduceMax     anything below the largest will do where the original's y is not that

On the way there may be nodes that only move entries about, and sums with constants. A Relu that reads the result itself
is left to `analysis.layers.is_rectified`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.layers import Array, Layer
from onnxprune.ops.base import attribute
from onnxprune.ops.entry_moves import (
    added_constant,
    keeps_entries,
    laid_out,
    largest_axes,
    takes_largest,
    with_axis,
)
from onnxprune.ops.traits import joins, rectifies


@dataclass(frozen=True)
class Floor:
    """Below which value every output of a layer of the original may as well be lower.

    Attributes:
        path: the nodes between the layer's result and the Relu or the maximum.
        end: the node that makes the maximum; None in front of a Relu.
        maximum: the name of the value that holds the maximum; empty in front of a Relu.
    """

    path: tuple[ir.Node, ...]
    end: ir.Node | None = None
    maximum: str = ""

    def values(self, shape: tuple[int, ...], largest: Array | None) -> Array:
        """Per entry of the result of this shape, its floor: float32; -inf where there is none.

        `largest`: what `maximum` holds for the same batch.
        """
        index: Array = np.arange(int(np.prod(shape))).reshape(shape)
        shift: Array = np.zeros(shape, np.float32)
        for node in self.path:
            index, shift = laid_out(node, index, -1), laid_out(node, shift, 0) + added_constant(node)
        floor = np.full(shape, -np.inf, np.float32)
        ends = np.zeros(index.shape, np.float32)
        if largest is not None and self.end is not None:
            ends = np.broadcast_to(with_axis(self.end, largest, index.ndim), index.shape)
        there = index >= 0
        floor.reshape(-1)[index[there]] = (ends - shift)[there]
        return floor


def floor_of(layer: Layer, analysis: Analysis) -> Floor | None:
    """The floor of a layer; None where all that it gives matters."""
    value, path, rectified = layer.last.outputs[0], list[ir.Node](), None
    while (reader := _only_reader(value, analysis)) is not None:
        if takes_largest(reader):
            return _maximum(path, value, reader, analysis) or rectified
        if not keeps_entries(reader, value):
            break
        if rectifies(reader) and rectified is None:
            rectified = Floor(tuple(path))
        path.append(reader)
        value = reader.outputs[0]
    return rectified


def _only_reader(value: ir.Value, analysis: Analysis) -> ir.Node | None:
    uses = list(value.uses())
    reader = uses[0][0] if len(uses) == 1 and not value.is_graph_output() else None
    return reader if reader is not None and reader.graph is analysis.model.graph else None


def _maximum(path: Sequence[ir.Node], value: ir.Value, reader: ir.Node, analysis: Analysis) -> Floor | None:
    """The floor in front of a maximum; None where it is not one of whole branches beside each other."""
    joined = [attribute(node, "axis", 0) for node in path if joins(node)]
    shapes, end, axes = analysis.shapes.shapes, reader, largest_axes(reader)
    if axes is not None:
        rank = len(shapes.get(value.name or "", ()))
        if len(axes) != 1 or not rank or len(joined) > 1 or any((axis - axes[0]) % rank for axis in joined):
            return None
    else:
        while (later := _only_reader(end.outputs[0], analysis)) is not None and _compares(later):
            end = later
        if joined or shapes.get(value.name or "") != shapes.get(end.outputs[0].name or "", ()):
            return None
    return Floor(tuple(path), end, end.outputs[0].name or "")


def _compares(node: ir.Node) -> bool:
    return takes_largest(node) and largest_axes(node) is None
