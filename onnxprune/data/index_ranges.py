"""Values that inputs may hold, found in the graph: positions in tables, categories, numbers it compares them with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import onnx_ir as ir

from onnxprune.model.signature import IndexRange
from onnxprune.ops.traits import (
    compares,
    counts_up,
    gives_part,
    known_entries,
    lengths,
    positions,
    repeats,
    retypes,
    shift_sign,
)

SizeOf = Callable[[ir.Value, int], int | str | None]


def declared_size(value: ir.Value, axis: int) -> int | str | None:
    """The size of an axis as the file states it: a number, the name of a dynamic axis, or None."""
    shape = value.shape
    if shape is None or not -len(shape) <= axis < len(shape):
        return None
    size = shape[axis]
    return size if isinstance(size, int) else size.value


def index_ranges(model: ir.Model, size_of: SizeOf = declared_size) -> dict[str, IndexRange]:
    """For each integer input that holds positions: those that all tables have that it chooses from.

    Of one that holds lengths, of sequences or the end of what is read, those from 1 up to the whole. Inputs are
    followed through nodes that pass entries on, take some of them, or shift them by a constant.

    Args:
        model: it is left as it is.
        size_of: the size of an axis of a value; its number, the name of a dynamic axis, or None.
    """
    found = {}
    for value in _fed(model):
        ranges = [
            IndexRange(-shift, rows - shift if isinstance(rows, int) else rows)
            for node, slot, shift in _readers(value)
            for rows in _rows(node, slot, size_of)
        ]
        ranges = ranges or [
            IndexRange(1 - shift, size + 1 - shift if isinstance(size, int) else size)
            for node, slot, shift in _readers(value)
            for size in _lengths(node, slot, size_of)
        ]
        if ranges:
            found[value.name or ""] = _within_all(ranges)
    return found


def known_categories(model: ir.Model) -> dict[str, tuple[Any, ...]]:
    """For each input of texts or whole numbers that is encoded: the entries that its first encoder knows."""
    found: dict[str, tuple[Any, ...]] = {}
    for value in (each for each in model.graph.inputs if each.dtype is not None):
        kinds = (entries for node, slot, _ in _readers(value) if slot == 0 and (entries := known_entries(node)))
        wanted = str if value.dtype == ir.DataType.STRING else int
        first = next((entries for entries in kinds if isinstance(entries[0], wanted)), None)
        if first is not None:
            found[value.name or ""] = tuple(first)
    return found


def compared_values(model: ir.Model) -> dict[str, list[int]]:
    """For each integer input that the graph compares with constants: these, and for each the numbers beside it."""
    found: dict[str, list[int]] = {}
    for value in _fed(model):
        numbers: dict[int, None] = {}
        for node, slot, shift in _readers(value):
            other = constant_input(node, 1 - slot) if compares(node) and slot < 2 else None
            if other is not None and other.size == 1:
                numbers[int(other.numpy().item()) - shift] = None
        beside = dict.fromkeys(near for number in numbers for near in (number - 1, number + 1))
        if numbers:
            found[value.name or ""] = list({**numbers, **beside})
    return found


def _fed(model: ir.Model) -> list[ir.Value]:
    """Inputs of whole numbers."""
    inputs = (value for value in model.graph.inputs if not value.is_initializer())
    return [value for value in inputs if value.dtype is not None and value.dtype.is_integer()]


def _within_all(ranges: list[IndexRange]) -> IndexRange:
    first = max(each.first for each in ranges)
    ends = [each.end for each in ranges if isinstance(each.end, int)]
    return IndexRange(first, min(ends) if ends else ranges[0].end)


def _readers(value: ir.Value, shift: int = 0) -> Iterator[tuple[ir.Node, int, int]]:
    """Who reads a value, in which slot, and what was added to it on the way."""
    for node, slot in value.uses():
        if slot == 0 and (repeats(node) or gives_part(node)):
            for output in node.outputs:
                yield from _readers(output, shift)
        step = _shift(node, slot)
        if step is not None:
            yield from _readers(node.outputs[0], shift + step)
        yield node, slot, shift


def _shift(node: ir.Node, slot: int) -> int | None:
    """The constant that a node adds to what is in one of its slots; None where it does something else."""
    sign = shift_sign(node)
    tensor = constant_input(node, 1 - slot) if sign and (slot == 0 or sign > 0) else None
    return None if tensor is None or tensor.size != 1 else sign * int(tensor.numpy().item())


def _rows(node: ir.Node, slot: int, size_of: SizeOf) -> Iterator[int | str]:
    for indices, table, axis in positions(node):
        value = node.inputs[table] if slot == indices and table < len(node.inputs) else None
        if value is not None:
            tensor = constant_input(node, table)
            shape = None if tensor is None else tensor.shape.numpy()
            rows = size_of(value, axis) if not shape else shape[axis]
            if rows is not None:
                yield rows


def _lengths(node: ir.Node, slot: int, size_of: SizeOf) -> Iterator[int | str]:
    for length, counted, axis in lengths(node):
        value = node.inputs[counted] if slot == length else None
        size = None if value is None else size_of(value, axis)
        if size is not None:
            yield size
    if counts_up(node) and slot == 1:
        yield from (rows for reader, at, _ in _readers(node.outputs[0]) for rows in _rows(reader, at, size_of))
    other = constant_input(node, 1 - slot) if compares(node) and slot < 2 else None
    if other is not None and other.size > 1:  # positions, of which those before the end count
        yield int(other.numpy().max()) + 1


def constant_input(node: ir.Node, slot: int) -> ir.TensorProtocol | None:
    """A constant input; a quantized table counts as what it represents."""
    value = node.inputs[slot] if slot < len(node.inputs) else None
    if value is None:
        return None
    producer = value.producer()
    if producer is not None and retypes(producer):
        return constant_input(producer, 0)
    return ir.convenience.get_const_tensor(value)
