"""Put what constant units add to their readers into the readers' biases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.analysis.constants import Constants
from onnxprune.dims import Atom, Mask, keep_mask
from onnxprune.ops.base import Array
from onnxprune.ops.constants.base import Site, Vector
from onnxprune.ops.constants.linear import Linear, linear_form
from onnxprune.ops.traits import adds
from onnxprune.passes.base import PassResult


@dataclass(frozen=True)
class FoldConstants:
    """Fold the constant units that a removal takes into the biases of what reads them.

    Before:  Conv(w1, b1) ── Relu ── Conv(w2, b2) ── ...      channel 3 of w1 is zero, so Relu gives c = max(b1[3], 0)
    After:   Conv(w1, b1) ── Relu ── Conv(w2, b2 + c * sum(w2[:, 3])) ── ...

    A bias is created where there is none; a MatMul gets an Add, unless one with a constant follows. The first half of a
    removal: run passes.RemoveUnits with the same masks next, on its own this changes the outputs, and twice adds twice.
    Values of the analysed model keep their names and, once the units are removed, what they hold.
    """

    constants: Constants
    keep: Mapping[Atom, Mask]

    def __call__(self, model: ir.Model) -> PassResult:
        """Apply in place."""
        if model is not self.constants.analysis.model:
            raise ValueError("the model is not the one that was analysed")
        work = list(self._find())  # all of it before the graph changes
        folding = _Folding(self.constants)
        for site, form, shift in work:
            folding.shift(site, form, shift)
        return PassResult(model, bool(work))

    def _find(self) -> Iterator[tuple[Site, Linear, Vector]]:
        """The sums that lose constant terms, and what those come to per output entry."""
        for contraction in self.constants.analysis.findings.contractions:
            gone = ~keep_mask(contraction.dim, self.keep)
            site = self.constants.site(contraction.node) if gone.any() else None
            form = None if site is None else linear_form(site)
            if site is None or form is None or form.refusal or contraction.operand != (0, form.axis):
                continue
            values, usable = form.usable(site.x[0])
            shift = form.total(np.where(usable & gone, values, 0))
            if shift.any():
                yield site, form, shift


class _Folding:
    """Edits an analysed model; dimensions of what is new are noted, so that it shrinks with the rest."""

    def __init__(self, constants: Constants) -> None:
        self.constants = constants
        self.analysis = constants.analysis
        self.graph = constants.analysis.model.graph
        self.names = set(self.analysis.dims)

    def shift(self, site: Site, form: Linear, shift: Vector) -> None:
        """Add `shift` [G*O] to the output of a node."""
        dim = self.analysis.dims[site.node.outputs[0].name or ""][form.out]
        if form.place is None:
            if not self._shift_next(site.node, shift, dim):
                self._insert_add(site.node, shift, dim)
            return
        old = site.constant(form.place)
        scale = float(site.attr("beta", 1.0))
        if old is None or scale == 0:
            site.node.attributes.pop("beta", None)
            old, scale = np.zeros(shift.shape, site.dtypes[0]), 1.0
        self._set_input(site.node, form.place, old + (shift / scale).astype(old.dtype), dim)

    def _shift_next(self, node: ir.Node, shift: Vector, dim: Atom) -> bool:
        """Use the Add behind the node, if there is one with a constant that lies along the same axis."""
        output = node.outputs[0]
        uses = list(output.uses())
        if len(uses) != 1 or output.is_graph_output() or not adds(uses[0][0]):
            return False
        add, position = uses[0]
        site = self.constants.site(add)
        old = None if site is None else site.constant(1 - position)
        if old is None or old.shape[-1:] != shift.shape or old.size != shift.size:
            return False
        self._set_input(add, 1 - position, old + shift.astype(old.dtype), dim)
        return True

    def _insert_add(self, node: ir.Node, shift: Vector, dim: Atom) -> None:
        """The new output takes the name of the old one."""
        old = node.outputs[0]
        name = old.name or ""
        add = ir.node("Add", [old], name=self._free_name(f"{node.name or node.op_type}/shifted"))
        new = add.outputs[0]
        new.shape, new.type = old.shape, old.type
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        old.name = self._free_name(f"{name}/unshifted")
        new.name = name
        self.analysis.dims[old.name] = self.analysis.dims[name]
        add.replace_input_with(0, old)
        add.resize_inputs(2)
        assert node.graph is not None  # of the model, or of a branch inside it
        node.graph.insert_after(node, add)
        self._set_input(add, 1, shift.astype(self.analysis.shapes.dtypes[name].numpy()), dim)

    def _set_input(self, node: ir.Node, slot: int, array: Array, dim: Atom) -> None:
        """Give a node a constant of its own whose last axis is `dim`."""
        name = self._free_name(f"{node.name or node.op_type}/bias")
        value = ir.Value(name=name, const_value=ir.Tensor(np.ascontiguousarray(array), name=name))
        value.shape, value.dtype = ir.Shape(array.shape), value.const_value.dtype  # type: ignore[union-attr]
        rows = self.analysis.dims[node.outputs[0].name or ""][: array.ndim - 1]
        leading = [row if row.size == size else Atom(1) for row, size in zip(rows, array.shape, strict=False)]
        self.analysis.dims[name] = [*leading, dim]
        self.graph.register_initializer(value)
        if slot >= len(node.inputs):
            node.resize_inputs(slot + 1)
        node.replace_input_with(slot, value)

    def _free_name(self, name: str) -> str:
        while name in self.names:
            name += "'"
        self.names.add(name)
        return name
