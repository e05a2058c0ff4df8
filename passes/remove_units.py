"""Take units away, everywhere at once: weights are sliced, constants that name a size follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.size_arithmetic import SizeArithmetic
from onnxprune.dims import Atom, Dim, Mask, keep_mask, kept_size
from onnxprune.model.graph import subgraphs
from onnxprune.model.weights import reading
from onnxprune.ops.base import Array
from onnxprune.ops.findings import IndexRef, SizeRef
from onnxprune.ops.traits import joins
from onnxprune.passes.base import PassResult


@dataclass(frozen=True)
class RemoveUnits:
    """Remove units from the model of an analysis.

    Before:  x [N, 64] ── Gemm(w [64, 128]) ── Reshape([0, 8, 16]) ── ...
    After:   x [N, 64] ── Gemm(w [64, 64])  ── Reshape([0, 4, 16]) ── ...     (four of eight heads)

    Every weight axis is an expression over the groups; its keep-mask follows from the masks of the groups, and the
    weight is sliced when it is next read or written, so a model larger than memory passes through. No operator is
    treated specially. The analysis describes the model as it was: analyse again before removing more. `keep` has
    the mask of the units that stay, per atom of the analysis; what it does not name stays whole.
    """

    analysis: Analysis
    keep: Mapping[Atom, Mask]

    def __call__(self, model: ir.Model) -> PassResult:
        """Apply in place."""
        if model is not self.analysis.model:
            raise ValueError("the model is not the one that was analysed")
        if not any((~mask).any() for mask in self.keep.values()):
            return PassResult(model, modified=False)
        _UnitRemoval(self.analysis, self.keep).run()
        return PassResult(model, modified=True)


class _UnitRemoval:
    """The state of one removal: masks, counts, and the names of constants made on the way."""

    def __init__(self, analysis: Analysis, keep: Mapping[Atom, Mask]) -> None:
        self.analysis = analysis
        self.graph = analysis.model.graph
        self.keep = keep
        self.kept = {atom: int(mask.sum()) for atom, mask in keep.items()}
        self.counter = count()
        self.arithmetic = SizeArithmetic(analysis.model, analysis.dims, self.kept)
        self.original = SizeArithmetic(analysis.model, analysis.dims, {})

    def run(self) -> None:
        for name, value in list(self.graph.initializers.items()):
            self._slice_weight(name, value)
        for index_ref in self.analysis.findings.index_refs:
            self._renumber(index_ref)
        pending: dict[tuple[ir.Node, int | str], list[SizeRef]] = {}
        for ref in self.analysis.findings.size_refs:
            pending.setdefault((ref.node, ref.slot), []).append(ref)
        for (node, slot), refs in pending.items():
            if self._is_computed(node, slot) or any(self._is_due(ref) for ref in refs):
                self._rewrite(node, slot, refs)
        for pinned in self.analysis.findings.pinned:
            if self._changed(pinned.axis):
                pinned.node.attributes[pinned.name] = ir.AttrFloat32(pinned.name, pinned.value)
        self._update_annotations()

    def _is_computed(self, node: ir.Node, slot: int | str) -> bool:
        """A target that the graph computes may follow a size that shrinks although its own axis does not."""
        if isinstance(slot, str) or slot >= len(node.inputs):
            return False
        value = node.inputs[slot]
        return value is not None and value.producer() is not None

    def _is_due(self, ref: SizeRef) -> bool:
        alone = not ref.singles or any(kept_size(dim, self.kept) == 1 for dim in ref.singles)
        return alone and self._changed(ref.axis)

    def _changed(self, dim: Dim) -> bool:
        return kept_size(dim, self.kept) != dim.size

    # -- weights

    def _slice_weight(self, name: str, value: ir.Value) -> None:
        dims = self.analysis.dims.get(name, [])
        masks = [keep_mask(dim, self.keep) if self._changed(dim) else None for dim in dims]
        tensor = value.const_value
        if tensor is None or all(mask is None for mask in masks):
            return
        shape = [dim.size if mask is None else int(mask.sum()) for dim, mask in zip(dims, masks, strict=True)]
        value.const_value = ir.LazyTensor(
            lambda: _sliced(tensor, masks), dtype=tensor.dtype, shape=ir.Shape(shape), name=name
        )
        value.shape = ir.Shape(shape)

    # -- constants that name sizes or positions

    def _renumber(self, ref: IndexRef) -> None:
        if not self._changed(ref.dim):
            return
        mask = keep_mask(ref.dim, self.keep)
        old = self._constant(ref.node, ref.slot)
        assert old is not None
        positions = old.ravel() % ref.dim.size
        new = (np.cumsum(mask) - 1)[positions[mask[positions]]]
        shape = [kept_size(dim, self.kept) for dim in ref.picked]
        self._set_input(ref.node, ref.slot, new.reshape(shape).astype(old.dtype))

    def _rewrite(self, node: ir.Node, slot: int | str, refs: list[SizeRef]) -> None:
        sizes = {ref.index: kept_size(ref.dim, self.kept) for ref in refs}
        if isinstance(slot, str):
            node.attributes[slot] = self._new_attribute(node, slot, sizes)
        elif slot >= len(node.inputs) or node.inputs[slot] is None:
            array = np.array([sizes[index] for index in sorted(sizes, key=lambda i: i or 0)], dtype=np.int64)
            self._set_input(node, slot, array)
            for ref in refs:
                node.attributes.pop(ref.dropping, None)
        else:
            constant = self._constant(node, slot)
            if constant is None:
                self._correct_computed(node, slot, refs)
            else:
                self._set_input(node, slot, _with_entries(constant, sizes))

    def _new_attribute(self, node: ir.Node, name: str, sizes: dict[int | None, int]) -> ir.Attr:
        if None in sizes:
            return ir.AttrInt64(name, sizes[None])
        old = node.attributes.get(name)
        values = list(old.as_ints()) if old is not None else [0] * len(sizes)
        return ir.AttrInt64s(name, [sizes.get(index, value) for index, value in enumerate(values)])

    def _constant(self, node: ir.Node, slot: int) -> Array | None:
        value = node.inputs[slot]
        assert value is not None
        if value.const_value is not None:
            return value.const_value.numpy()
        return self.analysis.shapes.known.get(value.name or "")

    def _set_input(self, node: ir.Node, slot: int, array: Array) -> None:
        if slot >= len(node.inputs):
            node.resize_inputs(slot + 1)
        node.replace_input_with(slot, self._new_constant(f"{node.name or node.op_type}/{slot}", array))

    def _new_constant(self, name: str, array: Array) -> ir.Value:
        while name in self.graph.initializers:
            name += "'"
        tensor = ir.Tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.graph.register_initializer(value)
        return value

    # -- sizes that the graph computes from dynamic ones

    def _correct_computed(self, node: ir.Node, slot: int, refs: list[SizeRef]) -> None:
        """A target computed at run time: entries that would come out wrong are replaced, or scaled where they vary.

        An entry that was not the size of its axis said nothing of it: 0 and -1 of a Reshape, 1 of an Expand. An entry
        that varies and may be inferred becomes -1; the analysis has checked that any other can be scaled.
        """
        value = node.inputs[slot]
        assert value is not None
        was, got = self.original.entries(value), self.arithmetic.entries(value)
        named = {ref.index or 0: ref for ref in refs if was[ref.index or 0] == ref.dim.size}
        due = {index: kept_size(ref.dim, self.kept) for index, ref in named.items()}
        wrong = {index: size for index, size in due.items() if got[index] != size}
        varying = {index: wrong.pop(index) for index in list(wrong) if self.analysis.varies(named[index])}
        if len(varying) == 1 and named[next(iter(varying))].inferable and all((size or 0) > 0 for size in got):
            wrong[varying.popitem()[0]] = -1
        if varying:
            value = self._scale(node, slot, value, got, varying)
        if wrong:
            value = self._replace_entries(node, slot, value, wrong)
        node.replace_input_with(slot, value)

    def _replace_entries(self, node: ir.Node, slot: int, value: ir.Value, fixed: dict[int, int]) -> ir.Value:
        """The target with some entries constant: a concatenation gets other pieces, anything else is overlaid."""
        name = f"{node.name or node.op_type}/{slot}"
        maker = value.producer()
        pieces = self._pieces(maker) if maker is not None and joins(maker) else []
        if pieces and all(self._is_own_piece(pieces, index) for index in fixed):
            inputs = []
            for start, piece, size in pieces:
                new = {index - start: entry for index, entry in fixed.items() if start <= index < start + size}
                old = np.asarray(self.arithmetic.entries(piece)) if new else None
                inputs.append(piece if old is None else self._new_constant(f"{name}/{start}", _with_entries(old, new)))
            return self._inserted(node, "Concat", inputs, {"axis": 0})
        length = len(self.arithmetic.entries(value))
        which = _with_entries(np.zeros(length, np.bool_), dict.fromkeys(fixed, True))
        overlay = _with_entries(np.zeros(length, np.int64), fixed)
        constants = [
            self._new_constant(f"{name}/{part}", array) for part, array in (("which", which), ("fixed", overlay))
        ]
        return self._inserted(node, "Where", [*constants, value])

    def _pieces(self, maker: ir.Node) -> list[tuple[int, ir.Value, int]]:
        """(first entry, value, number of entries) of each input of a concatenation."""
        pieces: list[tuple[int, ir.Value, int]] = []
        start = 0
        for piece in maker.inputs:
            assert piece is not None
            pieces.append((start, piece, len(self.arithmetic.entries(piece))))
            start += pieces[-1][2]
        return pieces

    def _is_own_piece(self, pieces: list[tuple[int, ir.Value, int]], index: int) -> bool:
        """Can the entry be exchanged without touching another that varies?"""
        return any(
            start <= index < start + size and (size == 1 or piece.const_value is not None)
            for start, piece, size in pieces
        )

    def _scale(self, node: ir.Node, slot: int, value: ir.Value, got: list[int | None], due: dict[int, int]) -> ir.Value:
        """The target with some entries multiplied by what they should be over what they would be."""
        ratios = {index: Fraction(size, got[index] or 1) for index, size in due.items()}
        for op_type, factors in (
            ("Mul", {index: ratio.numerator for index, ratio in ratios.items()}),
            ("Div", {index: ratio.denominator for index, ratio in ratios.items()}),
        ):
            if any(factor != 1 for factor in factors.values()):
                array = _with_entries(np.ones(len(got), np.int64), factors)
                constant = self._new_constant(f"{node.name or node.op_type}/{slot}/{op_type}", array)
                value = self._inserted(node, op_type, [value, constant])
        return value

    def _inserted(
        self, before: ir.Node, op_type: str, inputs: list[ir.Value], attributes: dict[str, int] | None = None
    ) -> ir.Value:
        """The output of a new node in front of another."""
        made = ir.node(
            op_type, inputs, attributes, name=f"{before.name or before.op_type}/{op_type}{next(self.counter)}"
        )
        made.outputs[0].name = f"{made.name}/out"
        assert before.graph is not None
        before.graph.insert_before(before, made)
        return made.outputs[0]

    # -- annotations

    def _update_annotations(self) -> None:
        """Shapes written beside inner values follow; the interface never changes."""
        interface = set(self.graph.outputs)
        for node in ir.traversal.RecursiveGraphIterator(self.graph):
            for value in (*node.outputs, *(value for body in subgraphs(node) for value in body.inputs)):
                dims = self.analysis.dims.get(value.name or "")
                if dims is None or value.shape is None or value in interface:
                    continue
                if any(self._changed(dim) for dim in dims):
                    value.shape = ir.Shape(map(self._annotated, dims, value.shape))

    def _annotated(self, dim: Dim, old: int | ir.SymbolicDim) -> int | ir.SymbolicDim | None:
        """The size that is left; a symbol like `12*batch` no longer holds when heads are removed, and goes."""
        if not self._changed(dim):
            return old
        return kept_size(dim, self.kept) if isinstance(old, int) else None


def _sliced(tensor: ir.TensorProtocol, masks: list[Mask | None]) -> ir.TensorProtocol:
    """The entries that stay, axis by axis; axes that lose most go first."""
    with reading(tensor) as array:
        for axis, mask in sorted(enumerate(masks), key=lambda item: 1.0 if item[1] is None else float(item[1].mean())):
            if mask is not None:
                array = np.compress(mask, array, axis=axis)
        return ir.Tensor(np.ascontiguousarray(array), dtype=tensor.dtype, name=tensor.name)


def _with_entries(array: Array, sizes: Mapping[Any, Any]) -> Array:
    new = np.array(array)
    flat = new.reshape(-1)
    for index, size in sizes.items():
        flat[0 if index is None else index] = size
    return new
