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
from onnxprune.ops.dequantize import constant_input

_MOVES = ("Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Pad", "Relu", "Add", "Concat")


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
            index, shift = _moved(node, index, -1), _moved(node, shift, 0) + _added(node)
        floor = np.full(shape, -np.inf, np.float32)
        ends = np.zeros(index.shape, np.float32) if largest is None else self._at_each(largest, index.shape)
        there = index >= 0
        floor.reshape(-1)[index[there]] = (ends - shift)[there]
        return floor

    def _at_each(self, largest: Array, shape: tuple[int, ...]) -> Array:
        """The maximum that every entry takes part in."""
        assert self.end is not None
        if self.end.op_type == "ReduceMax" and not attribute(self.end, "keepdims", 1):
            largest = np.expand_dims(largest, _axes(self.end)[0] % len(shape))
        return np.broadcast_to(largest, shape)


def floor_of(layer: Layer, analysis: Analysis) -> Floor | None:
    """The floor of a layer; None where all that it gives matters."""
    value, path, rectified = layer.last.outputs[0], list[ir.Node](), None
    while (reader := _only_reader(value, analysis)) is not None:
        if reader.op_type in ("Max", "ReduceMax"):
            found = _maximum(path, value, reader, analysis)
            return found or rectified
        if not _may_pass(reader, value):
            break
        if reader.op_type == "Relu" and rectified is None:
            rectified = Floor(tuple(path))
        path.append(reader)
        value = reader.outputs[0]
    return rectified


def _only_reader(value: ir.Value, analysis: Analysis) -> ir.Node | None:
    uses = list(value.uses())
    reader = uses[0][0] if len(uses) == 1 and not value.is_graph_output() else None
    return reader if reader is not None and reader.domain == "" and reader.graph is analysis.model.graph else None


def _may_pass(node: ir.Node, value: ir.Value) -> bool:
    """Does the node only move the entries of a value, add constants to them, or rectify them?"""
    if node.op_type not in _MOVES or node.domain != "":
        return False
    if node.op_type == "Add":
        return any(constant_input(node, slot) is not None for slot in (0, 1))
    if node.op_type == "Pad":
        pads = _pads(node)
        return (
            pads is not None
            and min(pads) >= 0
            and len(node.inputs) < 4
            and attribute(node, "mode", "constant")
            in (
                "constant",
                b"constant",
            )
        )
    if node.op_type == "Reshape":
        return node.inputs[0] is value and constant_input(node, 1) is not None and not attribute(node, "allowzero", 0)
    return node.op_type not in ("Squeeze", "Unsqueeze") or bool(_axes(node))


def _maximum(path: Sequence[ir.Node], value: ir.Value, reader: ir.Node, analysis: Analysis) -> Floor | None:
    """The floor in front of a maximum; None where it is not one of whole branches beside each other."""
    joined = [attribute(node, "axis", 0) for node in path if node.op_type == "Concat"]
    shapes = analysis.shapes.shapes
    end = reader
    if reader.op_type == "ReduceMax":
        axes, rank = _axes(reader), len(shapes.get(value.name or "", ()))
        if len(axes) != 1 or not rank or (joined and (joined[0] - axes[0]) % rank) or len(joined) > 1:
            return None
    else:
        while (later := _only_reader(end.outputs[0], analysis)) is not None and later.op_type == "Max":
            end = later
        if joined or shapes.get(value.name or "") != shapes.get(end.outputs[0].name or "", ()):
            return None
    return Floor(tuple(path), end, end.outputs[0].name or "")


def _moved(node: ir.Node, array: Array, outside: int) -> Array:
    """The entries as the node lays them out; what it puts beside them is `outside`."""
    kind = node.op_type
    if kind == "Transpose":
        return array.transpose(attribute(node, "perm", list(range(array.ndim))[::-1]))
    if kind == "Reshape":
        target = constant_input(node, 1)
        assert target is not None
        return array.reshape([array.shape[at] if size == 0 else int(size) for at, size in enumerate(target)])
    if kind == "Flatten":
        axis = attribute(node, "axis", 1) % (array.ndim + 1)
        return array.reshape(int(np.prod(array.shape[:axis])), -1)
    if kind == "Squeeze":
        return np.squeeze(array, tuple(_axes(node)))
    if kind == "Unsqueeze":
        return np.expand_dims(array, tuple(_axes(node)))
    if kind == "Pad":
        pads = np.array(_pads(node)).reshape(2, -1).T
        return np.pad(array, [tuple(pair) for pair in pads], constant_values=outside)
    return array


def _added(node: ir.Node) -> Array | float:
    """The constant that an Add adds."""
    found = [constant_input(node, slot) for slot in (0, 1)] if node.op_type == "Add" else []
    return next((array for array in found if array is not None), 0.0)


def _axes(node: ir.Node) -> list[int]:
    given = constant_input(node, 1)
    return [int(axis) for axis in (attribute(node, "axes", ()) if given is None else given.reshape(-1))]


def _pads(node: ir.Node) -> list[int] | None:
    given = constant_input(node, 1)
    pads = attribute(node, "pads") if given is None else given.reshape(-1)
    return None if pads is None else [int(each) for each in pads]
