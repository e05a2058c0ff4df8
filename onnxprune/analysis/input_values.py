"""Which positions integer inputs may hold, found from the sizes that an analysis knows."""

from __future__ import annotations

import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.data.index_ranges import SizeOf, index_ranges, known_categories
from onnxprune.model.signature import Values


def values_of(analysis: Analysis) -> Values:
    """The values of each input that chooses entries of tables, or is encoded; see `index_ranges`."""
    return {**known_categories(analysis.model), **index_ranges(analysis.model, size_of(analysis))}


def size_of(analysis: Analysis) -> SizeOf:
    """The size of an axis as the analysis knows it: the name of a dynamic axis of an input where it is one."""
    shapes = analysis.shapes
    symbols = {size: symbol for symbol, size in shapes.bindings.items()}

    def size(value: ir.Value, axis: int) -> int | str | None:
        shape, name = shapes.shapes.get(value.name or ""), value.name or ""
        if shape is None or not -len(shape) <= axis < len(shape):
            return None
        found = shape[axis]
        return symbols.get(found) if (name, axis % len(shape)) in shapes.dynamic else found

    return size
