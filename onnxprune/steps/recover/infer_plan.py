"""Which units a pruned model still has, found from its weights: what is left of a weight are rows of the original's.

A weight axis can be read off once the masks of the weight's other axes are known: each slice of the pruned weight is
the next equal slice of the original. Axes of the same dimension are read off together, those without equal slices
first; each makes others known. In the end all weights are cut by the masks found, and have to come out exactly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.layers import Array, read
from onnxprune.dims import Atom, Dim, Mask, atoms, describe, keep_mask, kept_size, units_of
from onnxprune.errors import PlanError
from onnxprune.model.weights import is_weight
from onnxprune.steps.plan import Plan, plan_from_masks

_ADVICE = "give the plan that was used with --plan"


@dataclass(frozen=True)
class _Pair:
    """A weight of the original with what is left of it, and the original's dimensions of its axes."""

    name: str
    before: Array
    after: Array
    dims: Sequence[Dim]


def find_plan(original: Analysis, pruned: Analysis) -> Plan:
    """The plan that leads from one model to the other.

    Raises PlanError when the weights do not tell, as when they were changed after the removal.
    """
    pairs = list(_weight_pairs(original, pruned))
    search = _Search(pairs)
    search.run()
    units = {group.atom: group for group in original.groups}
    if any(not mask.all() for atom, mask in search.keep.items() if atom not in units):
        raise PlanError(f"the pruned model is not cut from the original along its groups; {_ADVICE}")
    for pair in pairs:
        if not np.array_equal(_cut(pair, search.keep), pair.after, equal_nan=pair.after.dtype.kind == "f"):
            raise PlanError(f"weight '{pair.name}' is of another model, or was changed since; {_ADVICE}")
    return plan_from_masks(
        [(group, search.keep[group.atom]) for group in original.groups if group.atom in search.keep], {}
    )


def check_fit(original: Analysis, pruned: Analysis, keep: Mapping[Atom, Mask]) -> None:
    """Do the masks lead from the shapes of one model to those of the other? Raises PlanError where they do not."""
    counts = {atom: int(mask.sum()) for atom, mask in keep.items()}
    found = False
    for name, before, after in _shared_weights(original, pruned):
        found = True
        due = tuple(kept_size(dim, counts) for dim in original.dims[before.name or ""])
        shape = pruned.shapes.shapes[after.name or ""]
        if due != shape:
            raise PlanError(f"the plan leaves weight '{name}' with shape {due}, but the pruned model has {shape}")
    if not found:
        raise PlanError("the two models have no weight in common; is the pruned one made from the original?")


def _shared_weights(original: Analysis, pruned: Analysis) -> Iterator[tuple[str, ir.Value, ir.Value]]:
    """Weights that nodes of the same output read through the same input, once each."""
    counterparts = dict(_read_weights(pruned))
    seen: set[str | None] = set()
    for place, before in _read_weights(original):
        after = counterparts.get(place)
        if after is not None and before.name not in seen and before.name in original.dims:
            seen.add(before.name)
            yield before.name or "", before, after


def _read_weights(analysis: Analysis) -> Iterator[tuple[tuple[str, int], ir.Value]]:
    for _, node in analysis.operators:
        for slot, value in enumerate(node.inputs):
            if value is not None and value.const_value is not None and is_weight(value):
                yield (node.outputs[0].name or "", slot), value


def _weight_pairs(original: Analysis, pruned: Analysis) -> Iterator[_Pair]:
    found = False
    for name, before, after in _shared_weights(original, pruned):
        found = True
        one, other = read(before), read(after)
        if one.dtype != other.dtype or one.ndim != other.ndim or any(np.less(one.shape, other.shape)):
            raise PlanError(
                f"weight '{name}' is {other.dtype}{other.shape} in the pruned model, which is not part of it"
            )
        yield _Pair(name, one, other, original.dims[name])
    if not found:
        raise PlanError("the two models have no weight in common; is the pruned one made from the original?")


class _Search:
    """Masks of atoms, as far as they are known."""

    def __init__(self, pairs: list[_Pair]) -> None:
        self.pairs = pairs
        self.keep: dict[Atom, Mask] = {}
        inside = dict.fromkeys(atom for pair in pairs for dim in pair.dims for atom in atoms(dim))
        self.names = {atom: str(number) for number, atom in enumerate(inside)}
        for pair in pairs:
            for dim, size in zip(pair.dims, pair.after.shape, strict=True):
                if dim.size == size:  # units only ever go, so all of them are there
                    self.keep.update((atom, np.ones(atom.size, np.bool_)) for atom in atoms(dim))

    def run(self) -> None:
        """Read off axis after axis. Raises PlanError where slices of the pruned model are not in the original."""
        while places := self._readable():
            clear = next((found for found in map(self._mask, places.values()) if not found[1]), None)
            dim, mask = clear[2:] if clear else self._mask(next(iter(places.values())))[2:]
            for atom in dict.fromkeys(atoms(dim)):
                units = units_of(dim, atom)[mask]
                self.keep.setdefault(atom, np.isin(np.arange(atom.size), units))
            if not np.array_equal(keep_mask(dim, self.keep), mask):
                raise PlanError(f"what is left of an axis of {dim.size} entries are not whole units; {_ADVICE}")

    def _is_known(self, dim: Dim) -> bool:
        return all(atom in self.keep for atom in atoms(dim))

    def _readable(self) -> dict[str, list[tuple[_Pair, int]]]:
        """Unknown axes of weights whose other axes are known, by dimension."""
        places: dict[str, list[tuple[_Pair, int]]] = {}
        for pair in self.pairs:
            unknown = [axis for axis, dim in enumerate(pair.dims) if not self._is_known(dim)]
            if len(unknown) == 1:
                dim = pair.dims[unknown[0]]
                places.setdefault(describe(dim, self.names), []).append((pair, unknown[0]))
        return places

    def _mask(self, places: list[tuple[_Pair, int]]) -> tuple[str, bool, Dim, Mask]:
        """The entries left of a dimension; the second entry tells whether equal slices make others as likely."""
        before, after = [], []
        for pair, axis in places:
            known: list[Dim] = [dim if at != axis else Atom(dim.size) for at, dim in enumerate(pair.dims)]
            before.append(_slices(_cut(pair, self.keep, known), axis))
            after.append(_slices(pair.after, axis))
        if len({len(each) for each in after}) > 1:
            raise PlanError(f"weights disagree on how much is left of an axis; {_ADVICE}")
        wanted = [b"".join(parts) for parts in zip(*after, strict=True)]
        given = [b"".join(parts) for parts in zip(*before, strict=True)]
        pair, axis = places[0]
        mask = np.zeros(len(given), np.bool_)
        at = -1
        for slice_ in wanted:
            try:
                at = given.index(slice_, at + 1)
            except ValueError:
                raise PlanError(f"weight '{pair.name}' is of another model, or was changed since; {_ADVICE}") from None
            mask[at] = True
        chosen = set(wanted)
        ambiguous = sum(slice_ in chosen for slice_ in given) > len(wanted)
        return pair.name, ambiguous, pair.dims[axis], mask


def _cut(pair: _Pair, keep: Mapping[Atom, Mask], dims: Sequence[Dim] | None = None) -> Array:
    """The original's weight without what the masks remove."""
    array = pair.before
    for axis, dim in enumerate(dims or pair.dims):
        array = np.compress(keep_mask(dim, keep), array, axis=axis)
    return array


def _slices(array: Array, axis: int) -> list[bytes]:
    """What represents the content of each slice across an axis."""
    return [hashlib.blake2b(part.tobytes(), digest_size=16).digest() for part in np.moveaxis(array, axis, 0)]
