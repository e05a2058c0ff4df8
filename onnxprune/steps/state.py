"""The state of a compression: the model now, the original, and which units of the original are left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.analysis.constants import Constants
from onnxprune.analysis.copy import copy_analysis
from onnxprune.analysis.coupling import NO_DIMS
from onnxprune.analysis.groups import Analysis, Group
from onnxprune.analysis.inspect import analyze_model
from onnxprune.dims import Atom, Mask, handle, keep_mask, replaced, resolve
from onnxprune.model.graph import remove_dead
from onnxprune.ops.base import Dims
from onnxprune.passes.fold_constants import FoldConstants
from onnxprune.passes.remove_units import RemoveUnits
from onnxprune.steps.plan import Plan, plan_from_masks, structure_of

if TYPE_CHECKING:
    from onnxprune.steps.base import Record

Array = npt.NDArray[Any]


class Current:
    """The model as it is now, analysed when somebody asks.

    Args:
        model: the model.
        start: dimensions of its weights that are known, by name.
        parts: per atom of the original, the atom of `start` that enumerates the units that are left of it.
        analysis: the analysis, where there is one already.
    """

    def __init__(
        self,
        model: ir.Model,
        start: Mapping[str, Dims] = NO_DIMS,
        parts: Mapping[Atom, Atom] | None = None,
        analysis: Analysis | None = None,
    ) -> None:
        self.model = model
        self._start = start
        self._parts = parts
        if analysis is not None:
            self.__dict__["analysis"] = analysis

    @cached_property
    def analysis(self) -> Analysis:
        """The analysis of the model; what is known of its dimensions goes into it, so units keep their origin."""
        return analyze_model(self.model, self._start)

    def atom(self, original: Atom) -> Atom | None:
        """The atom of the analysis that an atom of the original is now; None where it cannot be cut any more."""
        if self._parts is None:
            return original
        part = self._parts.get(original)
        now = None if part is None else resolve(part)
        return now if isinstance(now, Atom) else None

    def rebuilt(self, model: ir.Model) -> Current:
        """The same units in another model, which is analysed when somebody asks: weights keep what is known of them."""
        known = self.__dict__.get("analysis")
        if known is None:
            return Current(model, self._start, self._parts)
        new: dict[Atom, Atom] = {}

        def fresh(atom: Atom) -> Atom:
            return new.setdefault(atom, Atom(atom.size))

        weights = [name for name in model.graph.initializers if name in known.dims]
        start = {name: [handle(replaced(dim, fresh)) for dim in known.dims[name]] for name in weights}
        originals = self._parts if self._parts is not None else {group.atom: group.atom for group in known.groups}
        parts = {atom: fresh(now) for atom in originals if (now := self.atom(atom)) is not None}
        return Current(model, start, parts)

    def changed(self, analysis: Analysis) -> Current:
        """The same units with other weights: `analysis` is that of a copy."""
        return Current(analysis.model, self._start, self._parts, analysis)


@dataclass(frozen=True)
class State:
    """The input and the result of a step. It lives in memory; nothing in it is read from a file again.

    Attributes:
        source: the file, or the model as it was given: what is run where the original is to be run.
        original: the analysis of the original, which never changes.
        current: the model now.
        left: per atom of the original that units were removed from, which are left: bool, shape [units].
        zeros: per weight, the entries that may be other than zero: bool, of the weight's shape. Training, quantization
            and saving keep the others at zero.
        checkpoints: states that a recipe has named, to go back to.
        records: what each step did.
        folded: constants that removed units gave were folded into biases.
        recovered: the recovery that the current weights have been through since units were removed, see `Recover`.
        given: the analysis of the model as it was given, where layers of `original` are split; see `prune.split`.
        ranks: the units of each split layer, by its weight.
    """

    source: Path | ir.Model
    original: Analysis
    current: Current
    left: Mapping[Atom, Mask] = field(default_factory=dict)
    zeros: Mapping[str, Mask] = field(default_factory=dict)
    checkpoints: Mapping[str, State] = field(default_factory=dict)
    records: tuple[Record, ...] = ()
    folded: bool = False
    recovered: object = None
    given: Analysis | None = None
    ranks: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def of(analysis: Analysis, source: Path | ir.Model | None = None) -> State:
        """The state before the first step."""
        return State(source or analysis.model, analysis, Current(analysis.model, analysis=analysis))

    @property
    def model(self) -> ir.Model:
        """The model now; it is not to be changed, see `with_weights`."""
        return self.current.model

    @property
    def analysis(self) -> Analysis:
        """Of the model now."""
        return self.current.analysis

    def mask(self, group: Group) -> Mask:
        """Which units of a group of the original are left: bool, shape [units]."""
        return self.left.get(group.atom, np.ones(group.units, dtype=np.bool_))

    def now(self, groups: Iterable[Group]) -> dict[str, Group]:
        """The groups of the model now that more can be removed from, by the ids of the original's groups."""
        by_atom = {group.atom: group for group in self.analysis.groups}
        atoms = ((group.id, self.current.atom(group.atom)) for group in groups)
        return {name: by_atom[atom] for name, atom in atoms if atom in by_atom}

    def cut(self, left: Mapping[Atom, Mask], *, fold: bool = False) -> State:
        """Remove units, so that `left` is left of the original; what it does not name stays as it is.

        Args:
            left: per atom of the original: bool, shape [units]. Units that were removed earlier stay removed.
            fold: put the constants that the removed units give into the biases of what reads them.
        """
        keep: dict[Atom, Mask] = {}
        total = dict(self.left)
        for atom, wanted in left.items():
            now, had = self.current.atom(atom), total.get(atom, np.ones(atom.size, dtype=np.bool_))
            if now is not None and (had & ~wanted).any():
                total[atom] = had & wanted
                keep[now] = wanted[had]
        analysis = copy_analysis(self.analysis)
        if fold:
            FoldConstants(Constants(analysis), keep)(analysis.model)
        RemoveUnits(analysis, keep)(analysis.model)
        remove_dead(analysis.model)
        current = self._smaller(analysis, keep)
        dims = self.analysis.dims  # a weight may be stored under another name by now, with a mask under that, too
        zeros = {name: _sliced(mask, dims[name], keep) for name, mask in self.zeros.items() if name in dims}
        return replace(self, current=current, left=total, zeros=zeros, folded=self.folded or fold, recovered=None)

    def _smaller(self, analysis: Analysis, keep: Mapping[Atom, Mask]) -> Current:
        """The model of an analysis that units were removed from, with what that says of its dimensions."""
        new: dict[Atom, Atom] = {}

        def smaller(atom: Atom) -> Atom:
            if atom not in new:
                new[atom] = Atom(int(keep[atom].sum()) if atom in keep else atom.size)
            return new[atom]

        weights = [name for name in analysis.model.graph.initializers if name in analysis.dims]
        start = {name: [handle(replaced(dim, smaller, keep)) for dim in analysis.dims[name]] for name in weights}
        parts = {}
        for group in self.original.groups:
            now = self.current.atom(group.atom)
            if now is not None:
                parts[group.atom] = smaller(now)
        return Current(analysis.model, start, parts)

    def with_weights(self, analysis: Analysis) -> State:
        """The same units with other weights: `analysis` is that of a copy, see `analysis.copy.copy_analysis`."""
        return replace(self, current=self.current.changed(analysis))

    def noted(self, record: Record) -> State:
        """The same with one more record."""
        return replace(self, records=(*self.records, record))

    def plan(self) -> Plan:
        """The plan: the units that were removed from the original."""
        masks = [(group, self.left[group.atom]) for group in self.original.groups if group.atom in self.left]
        plan = plan_from_masks(masks)
        return replace(plan, structure=structure_of(self.original), folds=self.folded, ranks=dict(self.ranks))


def _sliced(array: Array, dims: Dims, keep: Mapping[Atom, Mask]) -> Array:
    """An array along the dimensions of a weight, without the units that are removed."""
    for axis, dim in enumerate(dims):
        array = np.compress(keep_mask(dim, keep), array, axis=axis)
    return array
