"""Shape arithmetic: small arrays computed in numpy, and what sizes will be computed once units are removed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from math import prod

import onnx_ir as ir

from onnxprune.dims import Atom, Dim, kept_size
from onnxprune.ops.base import Array
from onnxprune.ops.compute import compute, is_shape_like
from onnxprune.ops.evaluate import shape_of
from onnxprune.ops.traits import joins


class SizeArithmetic:
    """The sizes that the arithmetic left in a graph will compute once sizes have changed.

    Evaluates values that follow from constants and from Shape of tensors whose axes are `dims` with `kept` units left.
    """

    def __init__(self, model: ir.Model, dims: Mapping[str, Sequence[Dim]], kept: Mapping[Atom, int]) -> None:
        self._dims = dims
        self._kept = kept
        self._opsets = dict(model.graph.opset_imports)
        self._values: dict[ir.Value, Array | None] = {}

    def value(self, value: ir.Value) -> Array | None:
        """The array, or None when the value depends on data."""
        if value not in self._values:
            self._values[value] = self._compute(value)
        return self._values[value]

    def entries(self, value: ir.Value) -> list[int | None]:
        """The sizes in a target one by one, None for those that depend on data; empty if even their number does."""
        known, maker = self.value(value), value.producer()
        if known is not None:
            return [int(size) for size in known.ravel()]
        if maker is not None and joins(maker):
            pieces = [self.entries(piece) for piece in maker.inputs if piece is not None]
            return [size for piece in pieces for size in piece] if all(pieces) else []
        shape = self._dims.get(value.name or "")
        return [] if shape is None else [None] * prod(dim.size for dim in shape)

    def sources(self, value: ir.Value) -> Iterator[ir.Value]:
        """The tensors whose sizes enter a value."""
        node = value.producer()
        if node is None:
            return
        first = node.inputs[0] if node.inputs else None
        if first is not None and shape_of(node, (1,)) is not None:
            yield first
            return
        for given in node.inputs:
            if given is not None:
                yield from self.sources(given)

    def _compute(self, value: ir.Value) -> Array | None:
        node = value.producer()
        if node is None:
            tensor = value.const_value
            return tensor.numpy() if tensor is not None and is_shape_like(tensor) else None
        first = node.inputs[0] if node.inputs else None
        if first is not None and first.name and first.name in self._dims:
            sizes = shape_of(node, tuple(kept_size(dim, self._kept) for dim in self._dims[first.name]))
            if sizes is not None:
                return sizes
        arrays = [None if given is None else self.value(given) for given in node.inputs]
        if not arrays or any(
            array is None and given is not None for array, given in zip(arrays, node.inputs, strict=True)
        ):
            return None
        results = compute(node, arrays, self._opsets)
        return None if results is None else results[node.outputs.index(value)]


class Scaling:
    """Do sizes that the graph computes stay in proportion to those that are due, at any size of the dynamic axes?

    Tried at a few of them: `batch * 12` does once two of 12 heads are left for three, `shape // 12 * 12` rounds.
    """

    def __init__(
        self, model: ir.Model, dims: Mapping[str, Sequence[Dim]], kept: Mapping[Atom, int], dynamic: Iterable[Atom]
    ) -> None:
        """`dynamic` are the axes whose sizes differ from run to run."""
        atoms = set(dynamic)
        self._kept = [
            {**kept, **{atom: times * atom.size + more for atom in atoms}}
            for times, more in ((1, 0), (2, 1), (3, 2), (1, 1), (0, 1))
        ]
        self._arithmetic = [SizeArithmetic(model, dims, sizes) for sizes in self._kept]

    def is_exact(self, value: ir.Value, index: int, dim: Dim) -> bool:
        """Is entry `index` of a computed target always the same multiple of the size of `dim`?"""
        ratios = set()
        for kept, arithmetic in zip(self._kept, self._arithmetic, strict=True):
            entries, due = arithmetic.entries(value), kept_size(dim, kept)
            computed = entries[index] if index < len(entries) else None
            if computed is None or computed < 1 or due < 1:
                return False
            ratios.add(Fraction(computed, due))
        return len(ratios) == 1
