"""Which units something reads that reaches an output: all others can go without a trace.

A unit leaves its dimension through sums only (see ops.findings.Contraction), so it is needed where a sum that matters

    y[j] = shift[j] + sum over i of x[i] * weight[i, j]

has a term of it that is neither zero nor a constant that the shift can take up, in an entry y[j] that is needed itself.
Nothing is needed until it is shown to be, so units that only read each other go too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.analysis.constants import Constants
from onnxprune.analysis.groups import Group
from onnxprune.dims import Dim, Mask, atoms, keep_mask, project
from onnxprune.ops.constants.computing import terms_of_product
from onnxprune.ops.constants.linear import linear_form
from onnxprune.ops.constants.recurrent import read_by_cell
from onnxprune.ops.findings import Contraction
from onnxprune.ops.learned import RECURRENT, learned


class Liveness:
    """Per group the units that are needed as far as is known; they only ever become more."""

    def __init__(self, constants: Constants, groups: Sequence[Group]) -> None:
        self.constants = constants
        self.analysis = constants.analysis
        self.needed = {group.atom: np.zeros(group.units, np.bool_) for group in self.analysis.groups}
        self.removable = {group.atom: group for group in groups if not group.statistics}
        self._seen: dict[int, bytes] = {}

    def run(self) -> None:
        """Find what is needed; where that is not a unit of a group, its first is made so."""
        self._sweep()
        for atom in reversed(self.removable):
            if not self.needed[atom].any():
                self.needed[atom][0] = True
                self._sweep()

    def _sweep(self) -> None:
        """Walk the sums backwards until nothing new is needed."""
        changed = True
        while changed:
            changed = False
            for contraction in reversed(self.analysis.findings.contractions):
                inside = [atom for atom in dict.fromkeys(atoms(contraction.dim)) if atom in self.needed]
                if all(self.needed[atom].all() for atom in inside):
                    continue
                entries = self._entries(contraction)
                counts = {} if entries is None else project(contraction.dim, entries.astype(np.float64))
                for atom in inside:
                    more = self.needed[atom] | (counts[atom] > 0) if counts else self.needed[atom]
                    changed |= bool((more != self.needed[atom]).any())
                    self.needed[atom] = more

    def _entries(self, contraction: Contraction) -> Mask | None:
        """The entries of the sum that are needed, bool, shape [size]; None when that is known from the last time."""
        outputs = self._outputs(contraction)
        if self._seen.get(id(contraction)) == outputs.tobytes():
            return None
        self._seen[id(contraction)] = outputs.tobytes()
        return self._needed_by(contraction, outputs)

    def _outputs(self, contraction: Contraction) -> Mask:
        """Which entries of the output are needed, along the axis that weights lead to; empty where there is none."""
        site = self.constants.site(contraction.node)
        form = None if site is None else linear_form(site)
        live = {atom: self.needed[atom] for atom in self.removable}
        if form is None:
            states = self._states(contraction)
            return np.ones(0, np.bool_) if states is None else keep_mask(states, live)
        return keep_mask(self.analysis.dims[contraction.node.outputs[0].name or ""][form.out], live)

    def _needed_by(self, contraction: Contraction, outputs: Mask) -> Mask:
        (slot, axis), size = contraction.operand, contraction.dim.size
        site = self.constants.site(contraction.node)
        if site is None:
            return np.ones(size, np.bool_)
        form = linear_form(site) if slot == 0 else None
        if contraction.zero is not None:  # of integers only their constant readers are known
            reads = form is not None and form.axis == axis
            return form.read_by(outputs) if form is not None and reads else np.ones(size, np.bool_)
        if form is not None and form.axis == axis:
            values, usable = form.usable(site.x[0])
            free = usable & (values == 0) if form.refusal else usable
            needed: Mask = form.read_by(outputs) & ~free
            return needed
        read = read_by_cell(site, slot, outputs) if len(outputs) else None
        if read is not None:
            return read
        terms = terms_of_product(site)
        if terms is not None:
            return terms
        known = site.x[slot]
        if known is None:
            return np.ones(size, np.bool_)
        values, usable = known.along(axis, size)
        adds: Mask = ~usable | (values != 0)
        return adds

    def _states(self, contraction: Contraction) -> Dim | None:
        """The hidden units of the recurrent cell that makes the sum; None for other operators."""
        node = contraction.node
        if RECURRENT not in learned(node).roles.values():
            return None
        value = node.inputs[2]
        return None if value is None else self.analysis.dims[value.name or ""][-1]

    def refusals(self) -> Iterator[str]:
        """Constant units that stay because of who reads them."""
        names = {node: name for name, node in self.analysis.operators}
        for contraction in self.analysis.findings.contractions:
            inside = [atom for atom in dict.fromkeys(atoms(contraction.dim)) if atom in self.removable]
            (slot, axis), node = contraction.operand, contraction.node
            known = self.constants.of(node.inputs[slot]) if inside else None
            if known is None or not self.constants.is_activation(node.inputs[slot]):
                continue
            values, constant = known.along(axis, contraction.dim.size)
            stays = constant & (values != 0) & self._needed_by(contraction, self._outputs(contraction))
            for atom in inside:
                count = int((project(contraction.dim, stays.astype(np.float64))[atom] > 0).sum())
                if count:
                    where = f"{node.op_type} '{names[node]}' {self._why(node)}"
                    yield f"{self.removable[atom].id}: constant units stay ({count}), since {where}"

    def _why(self, node: ir.Node) -> str:
        site = self.constants.site(node)
        form = None if site is None else linear_form(site)
        return (form.blur or form.refusal) if form else "has no bias that could take them up"

    def under_a_norm(self, groups: Sequence[Group]) -> Iterator[str]:
        """Units that nothing needs but a normalization, which takes statistics over them."""
        for group in groups:
            count = int((~self.needed[group.atom]).sum()) if group.statistics else 0
            if count:
                yield f"{group.id}: units without effect stay ({count}), since a norm takes statistics over them"
