"""What nodes do that only move the entries of a value about, add constants to them or take the largest of several."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxprune.ops.base import Array, attribute, key_of
from onnxprune.ops.dequantize import constant_input

_PLAIN = {("", name) for name in ("Identity", "Transpose", "Flatten", "Relu", "Concat")}
_ADD, _PAD, _RESHAPE = ("", "Add"), ("", "Pad"), ("", "Reshape")
_OF_SIZE_ONE = {("", "Squeeze"), ("", "Unsqueeze")}
_LARGEST, _LARGEST_ALONG = ("", "Max"), ("", "ReduceMax")


def takes_largest(node: ir.Node) -> bool:
    """Does it give the largest of several values, or of the entries along an axis?"""
    return key_of(node) in (_LARGEST, _LARGEST_ALONG)


def largest_axes(node: ir.Node) -> list[int] | None:
    """The axes along which it gives the largest entries; None where it compares several values."""
    return axes_of(node) if key_of(node) == _LARGEST_ALONG else None


def with_axis(node: ir.Node, largest: Array, rank: int) -> Array:
    """What `node` makes of a value of this rank, with the axis along which it gives the largest."""
    if largest_axes(node) is None or attribute(node, "keepdims", 1):
        return largest
    return np.expand_dims(largest, axes_of(node)[0] % rank)


def keeps_entries(node: ir.Node, value: ir.Value) -> bool:
    """Are all entries of a value in what comes out, rectified at most, or with a constant added?"""
    key = key_of(node)
    if key == _ADD:
        return any(constant_input(node, slot) is not None for slot in (0, 1))
    if key == _PAD:
        pads, mode = _pads(node), attribute(node, "mode", "constant")
        return pads is not None and min(pads) >= 0 and len(node.inputs) < 4 and mode in ("constant", b"constant")
    if key == _RESHAPE:
        return node.inputs[0] is value and constant_input(node, 1) is not None and not attribute(node, "allowzero", 0)
    return key in _PLAIN or (key in _OF_SIZE_ONE and bool(axes_of(node)))


def laid_out(node: ir.Node, array: Array, outside: int) -> Array:
    """The entries of an array as the node lays them out; what it puts beside them is `outside`."""
    key = key_of(node)
    if key == ("", "Transpose"):
        return array.transpose(attribute(node, "perm", list(range(array.ndim))[::-1]))
    if key == _RESHAPE:
        target = constant_input(node, 1)
        assert target is not None
        return array.reshape([array.shape[at] if size == 0 else int(size) for at, size in enumerate(target)])
    if key == ("", "Flatten"):
        axis = attribute(node, "axis", 1) % (array.ndim + 1)
        return array.reshape(int(np.prod(array.shape[:axis])), -1)
    if key in _OF_SIZE_ONE:
        axes = tuple(axes_of(node))
        return np.squeeze(array, axes) if key == ("", "Squeeze") else np.expand_dims(array, axes)
    if key == _PAD:
        pads = np.array(_pads(node)).reshape(2, -1).T
        return np.pad(array, [tuple(pair) for pair in pads], constant_values=outside)
    return array


def added_constant(node: ir.Node) -> Array | float:
    """The constant that an addition adds; 0 of other nodes."""
    found = [constant_input(node, slot) for slot in (0, 1)] if key_of(node) == _ADD else []
    return next((array for array in found if array is not None), 0.0)


def axes_of(node: ir.Node) -> list[int]:
    """The axes that a node names, in an attribute or as a constant; empty where it names none."""
    given = constant_input(node, 1)
    return [int(axis) for axis in (attribute(node, "axes", ()) if given is None else given.reshape(-1))]


def _pads(node: ir.Node) -> list[int] | None:
    given = constant_input(node, 1)
    pads = attribute(node, "pads") if given is None else given.reshape(-1)
    return None if pads is None else [int(each) for each in pads]
