"""Which weights of a model are trained, and as what.

A file does not say which of its constants were learned. Those are taken that an operator holds in a slot where weights
stand (see `ops.learned`), directly or through operators that compute on weights alone. Constants of entry-by-entry
operators need more evidence, for scales of attention, masks, frequencies and statistics of images are there too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from onnxprune.model.graph import reads, subgraphs
from onnxprune.model.weights import reading
from onnxprune.ops.dequantize import is_scale
from onnxprune.ops.learned import BIAS, SCALE, TABLE, learned
from onnxprune.ops.traits import measures, multiplies, repeats, statistics

# A constant with larger entries than this is a mask or a limit, no weight. So is one of zeros and a number below that.
_LARGEST, _MASKED = 1e4, -10.0
# How much of a model's knowledge is in a value: that of weights, of sizes and integers, of inputs, of layers.
_CONSTANT, _NUMBERS, _INPUT, _FEATURES = range(4)


@dataclass(frozen=True)
class Slot:
    """Where a weight is learned: the first node that reads it as one, directly or through others.

    Attributes:
        role: see `ops.learned`.
        node: the operator.
        slot: its input.
        direct: the node reads the initializer itself.
    """

    role: str
    node: ir.Node
    slot: int
    direct: bool


def trainable(model: ir.Model) -> dict[str, Slot]:
    """The initializers of the main graph that a training learns, by name, in the file's order.

    Floats only; scales of integers, running statistics, scalars beside entry-by-entry operators, masks, tables that
    multiply activations (rotary positions) and constants in front of every layer (statistics of images, frequencies)
    are left out.
    """
    depth = _depths(model.graph)
    found = {}
    for name, value in model.graph.initializers.items():
        if value.const_value is None or not value.const_value.dtype.is_floating_point() or is_scale(value):
            continue
        shape = tuple(value.const_value.shape.numpy())
        slot = next(_slots(value, shape, depth, direct=True), None)
        if slot is not None and not _is_mask(value):
            found[name] = slot
    return found


def _depths(graph: ir.Graph) -> dict[ir.Value, int]:
    """The sources of every value of a graph, and of the bodies in it."""
    depth = dict.fromkeys(graph.initializers.values(), _CONSTANT)
    for value in graph.inputs:
        if not value.is_initializer():
            floats = value.dtype is None or value.dtype.is_floating_point()
            depth[value] = _INPUT if floats else _NUMBERS
    for node in graph:
        _enter(node, depth)
    return depth


def _enter(node: ir.Node, depth: dict[ir.Value, int]) -> None:
    level = max((depth.get(value, _CONSTANT) for value in reads(node)), default=_CONSTANT)
    for body in subgraphs(node):
        depth.update(dict.fromkeys(body.initializers.values(), _CONSTANT))
        depth.update(dict.fromkeys(body.inputs, level))
        for inner in body:
            _enter(inner, depth)
        level = max([level, *(depth.get(value, _CONSTANT) for inner in body for value in inner.outputs)])
    entry = learned(node)
    if level > _CONSTANT and not entry.entrywise and _holds_weight(node, depth):
        level = _FEATURES
    depth.update(dict.fromkeys(node.outputs, min(level, _NUMBERS) if measures(node) else level))


def _holds_weight(node: ir.Node, depth: Mapping[ir.Value, int]) -> bool:
    """Has it a constant where a weight may be, beside what comes from more than integers, or indices of a table?"""
    entry = learned(node)
    for slot, value in enumerate(node.inputs):
        if value is not None and slot in entry.roles and depth.get(value, _CONSTANT) == _CONSTANT:
            others = [depth.get(other, _CONSTANT) for at, other in enumerate(node.inputs) if other and at != slot]
            if entry.roles[slot] == TABLE or _is_multiplied(_shape(value), max(others, default=_CONSTANT)):
                return True
    return False


def _slots(value: ir.Value, shape: tuple[int, ...], depth: Mapping[ir.Value, int], *, direct: bool) -> Iterator[Slot]:
    """The places where a value that is made from weights alone is learned; `shape` is that of the initializer."""
    for node, slot in value.uses():
        if depth.get(node.outputs[0], _CONSTANT) == _CONSTANT:
            if not direct or prod(shape) > 1:  # a single number that other weights are computed with is not a weight
                yield from _slots(node.outputs[0], shape, depth, direct=False)
        elif slot in statistics(node):
            continue
        elif (role := learned(node).roles.get(slot)) is not None and _is_learned(shape, node, slot, role, depth):
            yield Slot(role, node, slot, direct)


def _is_learned(shape: tuple[int, ...], node: ir.Node, slot: int, role: str, depth: Mapping[ir.Value, int]) -> bool:
    """Does the evidence say that a constant of this shape in this slot is a weight?"""
    others = [(at, other) for at, other in enumerate(node.inputs) if other is not None and at != slot]
    before = max((depth.get(other, _CONSTANT) for _, other in others), default=_CONSTANT)
    if role == TABLE:
        return prod(shape) > 1 and not _only_multiplies(node.outputs[0], depth)
    if not learned(node).entrywise:
        return _is_multiplied(shape, before)
    if role == BIAS and shape and any(_is_layer(other.producer(), depth) for _, other in others):
        return True
    if before < _FEATURES or prod(shape) < 2:
        return False
    return role != SCALE or sum(size > 1 for size in shape) < 2


def _is_multiplied(shape: tuple[int, ...] | None, before: int) -> bool:
    """Is it a weight beside what is made from `before`? Integers are spread by a vector of frequencies."""
    return before >= _INPUT or (before == _NUMBERS and (shape is None or sum(size > 1 for size in shape) > 1))


def _shape(value: ir.Value) -> tuple[int, ...] | None:
    return None if value.const_value is None else tuple(value.const_value.shape.numpy())


def _is_layer(node: ir.Node | None, depth: Mapping[ir.Value, int]) -> bool:
    """Does the node multiply with a weight, so that a single number behind it may be the bias of a single output?"""
    return node is not None and not learned(node).entrywise and _holds_weight(node, depth)


def _only_multiplies(value: ir.Value, depth: Mapping[ir.Value, int]) -> bool:
    """Do all that read looked-up rows multiply activations with them, entry by entry?"""
    ends = list(_ends(value))
    return bool(ends) and all(
        multiplies(node)
        and any(depth.get(other, _CONSTANT) == _FEATURES for other in node.inputs if other and other is not at)
        for node, at in ends
    )


def _ends(value: ir.Value) -> Iterator[tuple[ir.Node, ir.Value]]:
    """The nodes that read a value, behind those that only move its entries."""
    for node, slot in value.uses():
        if slot == 0 and repeats(node):
            yield from _ends(node.outputs[0])
        else:
            yield node, value


def _is_mask(value: ir.Value) -> bool:
    """Does it switch off, or limit, what it is added to?"""
    assert value.const_value is not None
    with reading(value.const_value) as array:
        exact = array.astype(np.float32)
        if not exact.size or not (np.abs(exact) <= _LARGEST).all():
            return True
        lowest = float(exact.min())
        return lowest <= _MASKED and bool(((exact == 0) | (exact == lowest)).all()) and bool((exact == 0).any())
