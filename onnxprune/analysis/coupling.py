"""Walk the graph once, let the operator rules say which dimensions are the same, and read off the pruning groups.

This file names no operator: it reads the tables of `ops` and drives their rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import networkx as nx
import numpy as np
import onnx_ir as ir

from onnxprune.model import graph as graphs
from onnxprune.analysis.size_arithmetic import Scaling, SizeArithmetic
from onnxprune.dims import Atom, Dim, atoms, describe, freeze, resolve, terms
from onnxprune.analysis.shape_inference import Shapes
from onnxprune.model.file import is_parameter
from onnxprune.ops import find_rule
from onnxprune.ops.base import Array, Dims, Findings, Op, Reason, RefuseError, SizeRef, key_of
from onnxprune.analysis.shapes import infer


@dataclass(frozen=True)
class Occurrence:
    """A weight axis that mentions a group: axis `axis` of initializer `tensor` is `dim`."""

    tensor: str
    axis: int
    dim: Dim


@dataclass
class Group:
    """`units` independent units that are removed one by one, everywhere at once.

    Attributes:
        id: stable name, the first weight axis that holds the group, like `conv1.weight[0]`.
        atom: the dimension that the units enumerate.
        occurrences: every weight axis that holds it, in topological order.
        kind: what the units are: channels, neurons, heads, kv-heads, head-dim, hidden, recurrent.
        statistics: a normalization takes statistics over the units, so removing some changes the others' values.
    """

    id: str
    atom: Atom
    occurrences: list[Occurrence]
    kind: str = ""
    statistics: bool = False

    @property
    def units(self) -> int:
        """How many units there are."""
        return self.atom.size


@dataclass(frozen=True)
class Frozen:
    """A weight axis that keeps its size, and why."""

    tensor: str
    axis: int
    size: int
    reason: Reason


@dataclass
class Analysis:
    """Everything that is known about the dimensions of a model.

    Attributes:
        model: the model analysed (canonical form).
        graph: its networkx view.
        shapes: concrete shapes and known constants.
        dims: per value the dimension of each axis.
        groups: what can be pruned, in topological order.
        frozen: the weight axes that cannot, with reasons.
        findings: constants that name sizes, contractions, tags.
        unruled: operators without a rule and their counts.
        activations: names of the values that depend on a graph input.
    """

    model: ir.Model
    graph: nx.DiGraph
    shapes: Shapes
    dims: dict[str, Dims]
    groups: list[Group] = field(default_factory=list)
    frozen: list[Frozen] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    unruled: Counter[str] = field(default_factory=Counter)
    activations: set[str] = field(default_factory=set)

    def names(self) -> dict[Atom, str]:
        """The id of each group by its atom, for printing dimensions."""
        return {group.atom: group.id for group in self.groups}

    def varies(self, ref: SizeRef) -> bool:
        """Is what a constant names an axis whose size differs from run to run?"""
        name = ref.node.outputs[0].name or ""
        axes = [axis for axis, handle in enumerate(self.dims.get(name, [])) if handle is ref.dim]
        return any((name, axis) in self.shapes.dynamic for axis in axes)


def analyze(model: ir.Model, shapes: Shapes | None = None) -> Analysis:
    """Find the groups of a model in canonical form (see passes.canonicalize).

    Args:
        model: the model; it is not changed.
        shapes: its shapes where they are known already.
    """
    graph = graphs.view(model)
    shapes = infer(model) if shapes is None else shapes
    analysis = Analysis(model, graph, shapes, _fresh_dims(shapes))
    _freeze_interface(analysis)
    _walk(analysis)
    _freeze_sizes_given_by_data(analysis)
    _freeze_dynamic(analysis)
    _freeze_sizes_that_round(analysis)
    _freeze_sizes_used_as_data(analysis)
    _collect_groups(analysis)
    _label(analysis)
    return analysis


def _fresh_dims(shapes: Shapes) -> dict[str, Dims]:
    """An atom for every axis of every value."""
    return {name: [Atom(size) for size in shape] for name, shape in shapes.shapes.items()}


def _freeze_interface(analysis: Analysis) -> None:
    model = analysis.model
    for kind, values in (("input", model.graph.inputs), ("output", model.graph.outputs)):
        for value in values:
            if value.name in model.graph.initializers and kind == "input":
                continue  # an overridable weight, as old exporters list them
            reason = Reason(f"{kind} '{value.name}' of the model keeps its shape", tensor=value.name or "")
            for dim in analysis.dims.get(value.name or "", []):
                freeze(dim, reason)


def _walk(analysis: Analysis) -> None:
    """One pass over the operators in topological order."""
    reached = graphs.data_dependent(analysis.graph)
    operators = graphs.operators(analysis.graph)
    activations: set[ir.Value] = set(analysis.model.graph.inputs) - set(analysis.model.graph.initializers.values())
    for name, node in operators:
        if name in reached or name not in analysis.graph:  # inside a body the difference is not worth a search
            activations.update(node.outputs)
        activations.update(value for body in graphs.subgraphs(node) for value in body.inputs)
    analysis.activations = {value.name or "" for value in activations}
    opsets = analysis.model.graph.opset_imports
    for name, node in operators:
        op = Op(node, name, analysis.dims, analysis.shapes.known, activations, _opset(opsets, node), analysis.findings)
        _apply_rule(op, analysis)
        for value in graphs.captured(node) if find_rule(key_of(node)) is None else ():
            for dim in analysis.dims.get(value.name or "", []):
                freeze(dim, op.reason("read inside the body of a control-flow operator", value.name or ""))


def _opset(opsets: dict[str, int], node: ir.Node) -> int:
    domain, _ = key_of(node)
    return opsets.get(domain, opsets.get("ai.onnx" if domain == "" else domain, 1))


def _apply_rule(op: Op, analysis: Analysis) -> None:
    domain, op_type = key_of(op.node)
    rule = find_rule((domain, op_type))
    if rule is None:
        analysis.unruled[f"{domain}.{op_type}".lstrip(".")] += 1
        op.freeze_everything("no rule for this operator")
        return
    values = (value.name for value in (*op.node.inputs, *op.node.outputs) if value is not None and value.name)
    unknown = next((name for name in values if name not in analysis.dims), None)
    if unknown is not None:
        op.freeze_everything(f"the shape of '{unknown}' is not known before the run")
        return
    try:
        rule(op)
    except RefuseError as refusal:
        op.freeze_everything(str(refusal))
    except (ValueError, IndexError, TypeError) as error:  # a form of the operator that the rule did not foresee
        op.freeze_everything(f"its rule does not fit this form of it ({error})")
    else:
        op.freeze_unmentioned("the operator reads this axis by position")


def _freeze_dynamic(analysis: Analysis) -> None:
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


def _freeze_sizes_given_by_data(analysis: Analysis) -> None:
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


def _freeze_sizes_that_round(analysis: Analysis) -> None:
    """A varying size that the graph computes is scaled after removal: where its arithmetic rounds, nothing goes.

    A single one that may be inferred needs no scaling. Tried with a half and with a third of all units gone.
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
    """Sizes after one in `share` units of everything prunable has gone."""
    everything = (atom for dims in analysis.dims.values() for dim in dims for atom in atoms(dim))
    return {atom: atom.size - atom.size // share for atom in everything if atom.reason is None}


def _freeze_sizes_used_as_data(analysis: Analysis) -> None:
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
    for name, node in graphs.operators(analysis.graph):
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


def _collect_groups(analysis: Analysis) -> None:
    """Unfrozen atoms of at least two units that occur in a parameter, in topological order of those."""
    found: dict[Atom, Group] = {}
    position: Counter[tuple[str, int]] = Counter()
    for tensor in _weights_in_order(analysis):
        for axis, handle in enumerate(analysis.dims.get(tensor, [])):
            dim = resolve(handle)
            inside = dict.fromkeys(atoms(dim))
            for atom in inside:
                if atom.size < 2 or (tensor in analysis.shapes.known and atom.reason is not None):
                    continue  # nothing to take away, or a shape constant rather than a weight
                if atom.reason is not None:
                    reason = atom.reason if isinstance(atom.reason, Reason) else Reason(str(atom.reason))
                    analysis.frozen.append(Frozen(tensor, axis, atom.size, reason))
                    continue
                if atom not in found:
                    found[atom] = Group(_group_id(tensor, axis, len(inside), position), atom, [])
                found[atom].occurrences.append(Occurrence(tensor, axis, dim))
    initializers = analysis.model.graph.initializers
    analysis.groups = [
        group for group in found.values() if any(is_parameter(initializers[each.tensor]) for each in group.occurrences)
    ]


def _group_id(tensor: str, axis: int, siblings: int, position: Counter[tuple[str, int]]) -> str:
    position[tensor, axis] += 1
    return f"{tensor}[{axis}]" + (f".{position[tensor, axis] - 1}" if siblings > 1 else "")


def _weights_in_order(analysis: Analysis) -> list[str]:
    """Initializers in the order in which operators first read them."""
    initializers = analysis.model.graph.initializers
    ordered: dict[str, None] = {}
    for _, node in graphs.operators(analysis.graph):
        for value in graphs.reads(node):
            if value.name in initializers:
                ordered[value.name or ""] = None
    return list(ordered)


def _label(analysis: Analysis) -> None:
    """Say what the units of each group are, from the tags that the rules left on their dimensions."""
    tagged: dict[Atom, Counter[str]] = {}
    nested: set[Atom] = set()
    for tag, dim, _ in analysis.findings.tags:
        inside = dict.fromkeys(atoms(dim))
        for atom in inside:
            tagged.setdefault(atom, Counter())[tag] += 1
        if tag == "heads":
            prunable = [atom for atom in inside if atom.reason is None and atom.size > 1]
            nested.update(prunable[:1] if len(prunable) > 1 else [])
    for group in analysis.groups:
        tags = tagged.get(group.atom, Counter())
        group.statistics = "statistics" in tags
        group.kind = _kind(tags, group.atom in nested)


def _kind(tags: Counter[str], is_outer_head: bool) -> str:
    """Specific evidence first: a recurrent cell or an attention product says more than the layer that makes the units.

    A residual stream is normalized, or written by several linear layers, added up, and read by several.
    """
    if "recurrent" in tags:
        return "recurrent"
    if "heads" in tags:
        return "kv-heads" if is_outer_head else "heads"
    if "head-dim" in tags:
        return "head-dim"
    linear = tags["produced"] + tags["read"]
    if linear and "normalized" in tags and linear >= tags["channels"]:
        return "hidden"
    if tags["produced"] > 1 and tags["read"] > 1 and "residual" in tags and "channels" not in tags:
        return "hidden"
    return "channels" if tags["channels"] >= max(linear, 1) or "spatial" in tags else "neurons"


def dims_text(analysis: Analysis, tensor: str) -> list[str]:
    """Each axis of a value as an expression over group ids."""
    names = analysis.names()
    return [describe(dim, names) for dim in analysis.dims.get(tensor, [])]
