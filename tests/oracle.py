"""The dead-unit oracle: a pruned model must equal the original with the removed units switched off.

Switched off means: every sum over the units (see ops.findings.Contraction) reads zeros in their place, and every
statistic over them is taken on the units that stay. The switched-off model has all its original shapes: only masks,
and Compress / Scatter pairs around statistics, are inserted, so it shares nothing with the removal of units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.dims import Atom, Mask, atoms, keep_mask, resolve
from onnxprune.model.file import open_model, save
from onnxprune.passes.remove_units import RemoveUnits
from onnxprune.pipeline.run import inspect
from onnxprune.runtime.session import Session
from onnxprune.steps.plan import Plan, Removal


@dataclass(frozen=True)
class Verdict:
    """Largest difference between pruned and switched-off outputs, and between switched-off and original (relative)."""

    difference: float
    effect: float


def every_other_unit(analysis: Analysis, seed: int = 0, ids: list[str] | None = None) -> Plan:
    """A plan that removes a random half of each group (of those in `ids`)."""
    rng = np.random.default_rng(seed)
    removals = []
    for group in analysis.groups:
        gone = tuple(sorted(int(unit) for unit in rng.permutation(group.units)[: group.units // 2]))
        if ids is None or group.id in ids:
            removals.append(Removal(group.id, group.kind, group.units, gone))
    return Plan(tuple(removals))


def judge(path: Path, plan: Plan, feed: dict[str, Any], folder: Path, watch: Sequence[str] = ()) -> Verdict:
    """Run original, pruned and switched-off model on one input."""
    return Trio(path, plan, folder, watch).judge(feed)


class Trio:
    """The original, the pruned and the switched-off model, ready to run at any size of their dynamic axes.

    `watch` names inner values to compare instead of the outputs: those of a detector, say, whose last step orders
    near-equal boxes by chance.
    """

    def __init__(self, path: Path, plan: Plan, folder: Path, watch: Sequence[str] = ()) -> None:
        pruned, masked = inspect(path), inspect(path)
        RemoveUnits(pruned, plan.keep(pruned))(pruned.model)
        switch_off(masked, plan.keep(masked))
        self.pruned = _ready(pruned.model, folder / "pruned.onnx", watch)
        self.masked = _ready(masked.model, folder / "masked.onnx", watch)
        self.original = _ready(open_model(path), folder / "original.onnx", watch) if watch else Session(path)

    def judge(self, feed: dict[str, Any]) -> Verdict:
        """How far the pruned outputs are from the switched-off ones, and those from the original's."""
        original, pruned, masked = (session.run(feed) for session in (self.original, self.pruned, self.masked))
        return Verdict(distance(pruned, masked), distance(original, masked))


def _ready(model: ir.Model, path: Path, watch: Sequence[str]) -> Session:
    if watch:
        inner = {value.name: value for node in model.graph for value in node.outputs}
        model.graph.outputs[:] = [inner[name] for name in watch]
    save(model, path)
    return Session(path)


def distance(a: dict[str, Any], b: dict[str, Any]) -> float:
    """The largest difference over all outputs, relative to the largest magnitude of each; inf if shapes differ."""
    worst = 0.0
    for name, x in a.items():
        y = b[name]
        if not isinstance(x, np.ndarray) or x.dtype.kind not in "fc":
            continue
        x, y = x.astype(np.float64), y.astype(np.float64)
        if x.shape != y.shape or not np.array_equal(np.isfinite(x), np.isfinite(y)):
            return float("inf")
        finite = np.isfinite(x)
        scale = max(float(np.abs(y[finite]).max(initial=0.0)), 1e-6)
        worst = max(worst, float(np.abs(x - y)[finite].max(initial=0.0)) / scale)
    return worst


def switch_off(analysis: Analysis, keep: dict[Atom, Mask]) -> None:
    """Edit the analysed model in place."""
    editor = _Editor(analysis)
    for contraction in analysis.findings.contractions:
        if _touched(contraction.dim, keep):
            slot, axis = contraction.operand
            editor.mask(contraction.node, slot, axis, keep_mask(contraction.dim, keep), contraction.zero)
    over: dict[ir.Node, set[Atom]] = {}
    for tag, dim, node in analysis.findings.tags:
        if tag == "statistics":
            over.setdefault(node, set()).update(atom for atom in atoms(dim) if atom in keep)
    for node, inside in over.items():
        if inside:
            editor.restrict(node, {atom: keep[atom] for atom in inside})


def _touched(dim: Any, keep: dict[Atom, Mask]) -> bool:
    return any(atom in keep for atom in atoms(resolve(dim)))


class _Editor:
    def __init__(self, analysis: Analysis) -> None:
        self.dims = analysis.dims
        self.graph = analysis.model.graph
        self.dtypes = analysis.shapes.dtypes
        self.count = 0

    def mask(self, node: ir.Node, slot: int, axis: int, mask: Mask, zero: int | None = None) -> None:
        """Multiply input `slot` of a node by 0 or 1 along one axis; integers become their zero point, input `zero`."""
        value = node.inputs[slot]
        assert value is not None
        shape = [1] * len(self.dims[_origin(value)])
        shape[axis] = len(mask)
        dtype = self.dtypes[_origin(value)]
        if dtype.is_floating_point():
            factor = self.constant(mask.reshape(shape).astype(dtype.numpy()))
            node.replace_input_with(slot, self.before(node, "Mul", [value, factor], _origin(value)))
            return
        point = node.inputs[zero] if zero is not None and zero < len(node.inputs) else None
        if point is None:
            point = self.constant(np.zeros((), dtype.numpy()))
        wide = [self.before(node, "Cast", [each], _origin(each), to=ir.DataType.INT32) for each in (value, point)]
        chosen = self.before(node, "Where", [self.constant(mask.reshape(shape)), *wide], _origin(value))
        node.replace_input_with(slot, self.before(node, "Cast", [chosen], _origin(value), to=dtype))

    def restrict(self, node: ir.Node, keep: dict[Atom, Mask]) -> None:
        """Run a node on the kept entries only and put its outputs back among zeros."""
        for slot, value in enumerate(node.inputs):
            if value is None:
                continue
            for axis, dim in enumerate(self.dims.get(_origin(value), [])):
                if _touched(dim, keep):
                    kept = self.constant(np.flatnonzero(keep_mask(dim, keep)))
                    value = self.before(node, "Gather", [value, kept], _origin(value), axis=axis)
            node.replace_input_with(slot, value)
        for output in list(node.outputs):
            for axis, dim in enumerate(self.dims.get(output.name or "", [])):
                if _touched(dim, keep):
                    self._spread(node, output, axis, keep_mask(dim, keep))

    def _spread(self, node: ir.Node, output: ir.Value, axis: int, mask: Mask) -> None:
        """Put the kept entries back in their places, among zeros."""
        name = output.name or ""
        uses = list(output.uses())
        shape = [-1 if i == axis else 1 for i in range(len(self.dims[name]))]
        places = self.constant(np.maximum(np.cumsum(mask) - 1, 0))
        zero = self.constant(np.zeros((), self.dtypes[name].numpy()))
        moved = ir.node("Gather", [output, places], {"axis": axis}, name=self.name())
        spread = ir.node("Where", [self.constant(mask.reshape(shape)), moved.outputs[0], zero], name=self.name())
        for each in (moved, spread):
            each.outputs[0].name = f"{name}//{self.name()}"
        node.graph.insert_after(node, [moved, spread])
        for user, slot in uses:
            user.replace_input_with(slot, spread.outputs[0])

    def before(self, node: ir.Node, op_type: str, inputs: list[ir.Value], origin: str, **attributes: Any) -> ir.Value:
        made = ir.node(op_type, inputs, attributes or None, name=self.name())
        made.outputs[0].name = f"{origin}//{self.name()}"
        node.graph.insert_before(node, made)
        return made.outputs[0]

    def constant(self, array: np.ndarray[Any, Any]) -> ir.Value:
        name = self.name()
        value = ir.Value(name=name, shape=ir.Shape(array.shape), const_value=ir.Tensor(array, name=name))
        value.dtype = ir.DataType.from_numpy(array.dtype)
        self.graph.register_initializer(value)
        return value

    def name(self) -> str:
        self.count += 1
        return f"oracle{self.count}"


def _origin(value: ir.Value) -> str:
    """The name of the value in the analysed model that an inserted value represents."""
    return (value.name or "").partition("//")[0]
