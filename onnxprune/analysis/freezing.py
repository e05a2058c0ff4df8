"""Dimensions that keep their size, beside those that a rule freezes: interface, dynamic axes, computed sizes."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.size_arithmetic import Scaling, SizeArithmetic
from onnxprune.dims import Atom, atoms, freeze, resolve, terms
from onnxprune.ops.base import Array
from onnxprune.ops.findings import Reason, SizeRef


def freeze_interface(analysis: Analysis, open_ends: Collection[str] = ()) -> None:
    """Inputs and outputs of the model keep their shapes, but for `open_ends`."""
    model = analysis.model
    for kind, values in (("input", model.graph.inputs), ("output", model.graph.outputs)):
        for value in values:
            if value.name in model.graph.initializers and kind == "input":
                continue  # an overridable weight, as old exporters list them
            if value.name in open_ends:
                continue
            reason = Reason(f"{kind} '{value.name}' of the model keeps its shape", tensor=value.name or "")
            for dim in analysis.dims.get(value.name or "", []):
                freeze(dim, reason)


def freeze_dynamic(analysis: Analysis) -> None:
    """A dynamic axis that was not traced to one of the inputs (as in batch * heads) keeps its size as a whole.

    So does what lies beside a dynamic axis (learned tokens before a sequence): sizes that the graph computes are scaled
    after removal, which is right for batch * heads at any batch, and wrong for tokens + sequence.
    Asked after the walk: a filler made of computed sizes may turn out to be batch * heads only where it is used.
    """
    reason = Reason("its size differs from run to run (dynamic axis)")
    for name, axis in sorted(analysis.shapes.dynamic):
        dim = analysis.dims[name][axis]
        if all(atom.reason is None for atom in atoms(dim)) or sum(1 for _ in terms(dim)) > 1:
            freeze(dim, reason)


def freeze_sizes_given_by_data(analysis: Analysis) -> None:
    """A target that is fed as an input, or computed from data, cannot follow: what it names keeps its size.

    Entries of a computed target that are constants or size arithmetic of their own are put right after removal.
    """
    arithmetic = SizeArithmetic(analysis.model, analysis.dims, {})
    for ref, value in _computed_targets(analysis):
        entries = arithmetic.entries(value)
        if (ref.index or 0) >= len(entries) or entries[ref.index or 0] is None:
            why = "its size is given by data, as part of an input that says shapes"
            freeze(ref.axis, Reason(why, ref.node.name or "", ref.node.op_type, value.name or ""))


def _computed_targets(analysis: Analysis) -> Iterator[tuple[SizeRef, ir.Value]]:
    """The inputs that name sizes and are neither constants nor known before the run."""
    for ref in analysis.findings.size_refs:
        value = ref.node.inputs[ref.slot] if isinstance(ref.slot, int) and ref.slot < len(ref.node.inputs) else None
        if value is not None and value.const_value is None and value.name not in analysis.shapes.known:
            yield ref, value


def freeze_sizes_that_round(analysis: Analysis) -> None:
    """A varying size that the graph computes is scaled after removal: where its arithmetic rounds, nothing goes.

    A single one that may be inferred needs no scaling. Tried with a half and with a third of all units removed.
    """
    suspects = list(_scaled_sizes(analysis))
    if not suspects:
        return
    ends = {resolve(analysis.dims[name][axis]) for name, axis in analysis.shapes.dynamic}
    dynamic = [dim for dim in ends if isinstance(dim, Atom)]
    for share in (2, 3):
        scaling = Scaling(analysis.model, analysis.dims, _shrunk(analysis, share), dynamic)
        for ref, value in suspects:
            if not scaling.is_exact(value, ref.index or 0, ref.dim):
                why = "the graph computes its size from a dynamic one, by arithmetic that rounds"
                freeze(ref.dim, Reason(why, ref.node.name or "", ref.node.op_type, value.name or ""))


def _scaled_sizes(analysis: Analysis) -> Iterator[tuple[SizeRef, ir.Value]]:
    """The entries of computed targets that vary, name something prunable, and cannot be left to be inferred."""
    original = SizeArithmetic(analysis.model, analysis.dims, {})
    targets: dict[tuple[ir.Node, ir.Value], list[SizeRef]] = {}
    for ref, value in _computed_targets(analysis):
        prunable = any(atom.reason is None for atom in atoms(ref.dim))
        if prunable and analysis.varies(ref) and original.entries(value)[ref.index or 0] == ref.dim.size:
            targets.setdefault((ref.node, value), []).append(ref)
    for (_, value), refs in targets.items():
        if len(refs) > 1 or not refs[0].inferable or any((size or 0) < 1 for size in original.entries(value)):
            yield from ((ref, value) for ref in refs)


def _shrunk(analysis: Analysis, share: int) -> dict[Atom, int]:
    """Sizes after one in `share` units of everything prunable are removed."""
    roots = {resolve(dim) for dims in analysis.dims.values() for dim in dims}
    return {atom: atom.size - atom.size // share for root in roots for atom in atoms(root) if atom.reason is None}


def freeze_sizes_used_as_data(analysis: Analysis) -> None:
    """A number computed at run time from a size that could shrink, and used as data, would change: keep that size.

    What follows from static sizes alone was folded before; this is left for sizes mixed with dynamic ones. Every
    prunable size is halved on paper; where a value that enters a computation comes out different, its sources freeze.
    """
    shape_slots = {(ref.node, ref.slot) for ref in analysis.findings.size_refs}
    halved = _shrunk(analysis, 2)
    before, after = (
        SizeArithmetic(analysis.model, analysis.dims, {}),
        SizeArithmetic(analysis.model, analysis.dims, halved),
    )
    for name, node in analysis.operators:
        if not node.inputs or all(after.value(value) is not None for value in node.outputs):
            continue
        for slot, value in enumerate(node.inputs):
            if value is None or value.producer() is None or (node, slot) in shape_slots:
                continue
            now, then = after.value(value), before.value(value)
            if now is not None and then is not None and not _same_number(now, then):
                reason = Reason("its size enters a computation as a number", name, node.op_type, value.name or "")
                for source in after.sources(value):
                    for dim in analysis.dims.get(source.name or "", []):
                        freeze(dim, reason)


def _same_number(now: Array, then: Array) -> bool:
    """Equal, or fillers of one number that differ in size only: their axes are followed like any other."""
    return np.array_equal(now, then) or (
        now.size > 0 < then.size and bool((now == then.flat[0]).all() and (then == then.flat[0]).all())
    )
