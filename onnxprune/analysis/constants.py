"""Walk the graph forward and note which entries of which value are constant."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.model.weights import reading
from onnxprune.ops import find_rule
from onnxprune.ops.base import Array, is_frozen, key_of
from onnxprune.ops.constants.base import KnownEntries, Site, find_constant_rule
from onnxprune.ops.constants.computing import elementwise
from onnxprune.ops.elementwise import broadcast

# What is known of a value may take as many numbers; beyond that, axes that cannot shrink are summed up first.
_MAX_ENTRIES = 65_536
# Since this IR version an initializer that is a graph input too is a default that a caller may override.
_DEFAULTS = 4


class Constants:
    """Facts about the values of an analysed model, for any finite input.

    Only what depends on the inputs is kept; weights, and what is computed from them, are read when they are asked for.
    """

    def __init__(self, analysis: Analysis) -> None:
        self.analysis = analysis
        self._opsets = dict(analysis.model.graph.opset_imports)
        self._overridable = analysis.model.ir_version >= _DEFAULTS
        self._found: dict[ir.Value, KnownEntries] = {}
        for _, node in analysis.operators:
            if any(value.name in analysis.activations for value in node.outputs):
                results = self._apply(node)
                self._found.update((value, known) for value, known in zip(node.outputs, results, strict=True) if known)

    def of(self, value: ir.Value | None) -> KnownEntries | None:
        """The facts about a value, None where there are none."""
        if value is None or (value.is_graph_input() and value.is_initializer() and self._overridable):
            return None
        if value.name in self.analysis.shapes.known:
            return KnownEntries.whole(self.analysis.shapes.known[value.name or ""])
        if value.name in self.analysis.activations:
            return self._found.get(value)
        node = value.producer()
        if node is not None:
            return self._apply(node)[node.outputs.index(value)]
        return None if value.const_value is None else KnownEntries.whole(_array(value.const_value))

    def is_activation(self, value: ir.Value | None) -> bool:
        """Does a value depend on an input of the model?"""
        return value is not None and value.name in self.analysis.activations

    def site(self, node: ir.Node) -> Site | None:
        """A node as the rules see it; None when the shape of a value is missing, or an output is empty."""
        shapes = self.analysis.shapes
        values = [value.name for value in (*node.inputs, *node.outputs) if value is not None and value.name]
        if any(name not in shapes.shapes for name in values):
            return None
        if any(0 in shapes.shapes.get(value.name or "", ()) for value in node.outputs):
            return None
        given = ["" if value is None else value.name or "" for value in node.inputs]
        made = [value.name or "" for value in node.outputs]
        return Site(
            node,
            [self.of(value) for value in node.inputs],
            [shapes.shapes.get(name, ()) for name in given],
            [shapes.shapes.get(name, ()) for name in made],
            [{axis for axis, _ in enumerate(shapes.shapes.get(n, ())) if (n, axis) in shapes.dynamic} for n in given],
            [_dtype(shapes.dtypes.get(name)) for name in made],
            self._opsets,
        )

    def _apply(self, node: ir.Node) -> list[KnownEntries | None]:
        """The facts about the outputs; a form of an operator that its rule does not foresee says nothing."""
        nothing: list[KnownEntries | None] = [None] * len(node.outputs)
        key = key_of(node)
        rule = elementwise if key[0] == "" and find_rule(key) is broadcast else find_constant_rule(key)
        site = self.site(node) if rule else None
        if rule is None or site is None:
            return nothing
        try:
            with np.errstate(all="ignore"):
                result = rule(site)
                results: Sequence[KnownEntries | None] = result if isinstance(result, list) else [result]
                tidy = [self._tidy(value, known) for value, known in zip(node.outputs, results, strict=False)]
        except (ValueError, IndexError, TypeError):
            return nothing
        return tidy + nothing[len(tidy) :]

    def _tidy(self, value: ir.Value, known: KnownEntries | None) -> KnownEntries | None:
        """Drop what is not a number, what would change with a dynamic size, and what is too much to keep."""
        name = value.name or ""
        if known is None:
            return None
        shape, sizes = self.analysis.shapes.shapes[name], known.values.shape
        if len(shape) != len(sizes) or any(size not in (1, full) for size, full in zip(sizes, shape, strict=True)):
            raise ValueError("a rule does not fit this form of its operator")
        if name not in self.analysis.activations:
            return known
        if not self.analysis.shapes.dtypes[name].is_floating_point():
            return None
        known = known.collapsed(axis for axis in range(len(shape)) if (name, axis) in self.analysis.shapes.dynamic)
        if known.values.size > _MAX_ENTRIES:
            known = known.collapsed(axis for axis, dim in enumerate(self.analysis.dims[name]) if is_frozen(dim))
        known = KnownEntries(known.values, known.known & np.isfinite(known.values))
        return known if known.known.any() and known.values.size <= _MAX_ENTRIES else None


def _array(tensor: ir.TensorProtocol) -> Array:
    """A weight; one that lies in a file stays mapped as long as the array is used."""
    with reading(tensor) as array:
        return array


def _dtype(dtype: ir.DataType | None) -> npt.DTypeLike:
    return np.float32 if dtype is None or not dtype.is_floating_point() else dtype.numpy()
