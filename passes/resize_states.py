"""States whose shape is part of the interface: their units may go all the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.analysis.copy import copy_model
from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.inspect import analyze_model
from onnxprune.analysis.states import removable_axes
from onnxprune.errors import ModelError
from onnxprune.ops.base import Array
from onnxprune.ops.compute import compute
from onnxprune.ops.proof import moved_slots
from onnxprune.passes.base import PassResult

_FIRST_OPSET = 11  # of ScatterND
_TAKEN, _PUT_BACK = "/taken", "/put back"


@dataclass(frozen=True)
class ResizeStates:
    """Take the units of states that are left out of an input, and put them back among zeros in an output.

    Before:  h [1, N, 64] ── LSTM(64) ── hn [1, N, 64]
    After:   h [1, N, 64] ── GatherND(positions [64]) ── LSTM(64) ── ScatterND(zeros, positions [64]) ── hn [1, N, 64]

    The result is the same model. A unit goes by its entry in the positions, so the interface keeps its shape, a unit
    keeps its place in it, and the places of those that went are zero. `pairs` has the output that each state comes
    from, by the input that it goes into. Only axes are treated whose units could go if the interface were open.
    """

    pairs: Mapping[str, str]

    def __call__(self, model: ir.Model) -> PassResult:
        """Apply in place. Raises ModelError for a model of an opset without ScatterND."""
        if model.opset_imports.get("", _FIRST_OPSET) < _FIRST_OPSET:
            raise ModelError(f"states are resized from opset {_FIRST_OPSET} on; convert the model to it first")
        analysis = analyze_model(copy_model(model), open_ends={*self.pairs, *self.pairs.values()})
        inputs = {value.name: value for value in model.graph.inputs}
        outputs = {value.name: value for value in model.graph.outputs}
        modified = False
        for name, other in self.pairs.items():
            modified |= _StatePair(model, analysis).resize(inputs[name], outputs[other])
        return PassResult(model, modified)


Reader = tuple[ir.Node, int]


@dataclass(frozen=True)
class _Part:
    """A value that holds entries of a state and nothing else.

    Attributes:
        value: the value.
        axis: that of the units.
        entries: int64 [units, others], sorted: which entries of the flattened state each unit has.
        reader: for part of an output, the node and slot that read it; None: it is the output itself.
    """

    value: ir.Value
    axis: int
    entries: Array
    reader: Reader | None = None


class _StatePair:
    """One state: an input and the output that it comes from."""

    def __init__(self, model: ir.Model, analysis: Analysis) -> None:
        self._model, self._analysis = model, analysis
        self._opsets = dict(model.opset_imports)

    def resize(self, entry: ir.Value, end: ir.Value) -> bool:
        """Treat every part that has units to lose; False where none has."""
        taken = list(self._taken_apart(entry, self._numbered(entry, 0)))
        pieces: list[tuple[ir.Value, Reader | None, Array]] = []
        whole = self._put_together(end, None, pieces)
        order = np.argsort(whole.ravel())
        parts = [part for value, entries in taken for part in self._part(value, entries)]
        ends = [part for value, reader, codes in pieces for part in self._part(value, order[codes], reader)]
        for part in parts:
            same = next((end for end in ends if np.array_equal(end.entries, part.entries)), None)
            positions = self._positions(part)
            self._take(part, positions)
            if same is not None:  # the same units, which go together
                ends = [end for end in ends if end is not same]
                self._put_back(same, positions)
        for end_part in ends:
            self._put_back(end_part, self._positions(end_part))
        return bool(parts or ends)

    def _shape(self, value: ir.Value) -> tuple[int, ...]:
        return self._analysis.shapes.shapes[value.name or ""]

    def _numbered(self, value: ir.Value, first: int) -> Array:
        shape = self._shape(value)
        return first + np.arange(prod(shape)).reshape(shape)

    def _part(self, value: ir.Value, entries: Array, reader: Reader | None = None) -> Iterator[_Part]:
        for axis in removable_axes(self._analysis, value)[:1]:
            rows = np.moveaxis(entries, axis, 0).reshape(entries.shape[axis], -1)
            yield _Part(value, axis, np.sort(rows, axis=1), reader)

    def _computed(self, node: ir.Node, arrays: list[Array]) -> list[Array] | None:
        """The result of a node that moves entries for these numbers of entries; None where that is not known."""
        rest = [None if value is None else self._known(value) for value in node.inputs[len(arrays) :]]
        if any(
            array is None and value is not None for array, value in zip(rest, node.inputs[len(arrays) :], strict=True)
        ):
            return None
        return compute(node, [*arrays, *rest], self._opsets)

    def _known(self, value: ir.Value) -> Array | None:
        known = self._analysis.shapes.known.get(value.name or "")
        return value.const_value.numpy() if known is None and value.const_value is not None else known

    def _taken_apart(self, value: ir.Value, entries: Array) -> Iterator[tuple[ir.Value, Array]]:
        """The parts of an input, each with the entries of it that it has."""
        uses = list(value.uses())
        results = [
            self._computed(node, [entries]) if slot in moved_slots(node) and slot == 0 else None for node, slot in uses
        ]
        if not uses or value.is_graph_output() or any(each is None for each in results):
            yield value, entries
            return
        for (node, _), arrays in zip(uses, results, strict=True):
            for output, array in zip(node.outputs, arrays or (), strict=False):
                yield from self._taken_apart(output, array)

    def _put_together(
        self, value: ir.Value, reader: Reader | None, pieces: list[tuple[ir.Value, Reader | None, Array]]
    ) -> Array:
        """The entries of an output, numbered as they come in `pieces`, to which those that it consists of are added."""
        node, found = value.producer(), len(pieces)
        alone = len(value.uses()) == (reader is not None) and value.is_graph_output() == (reader is None)
        if node is not None and moved_slots(node) and alone:
            given = [(node.inputs[slot], slot) for slot in moved_slots(node)]
            arrays = [self._put_together(each, (node, slot), pieces) for each, slot in given if each is not None]
            results = self._computed(node, arrays)
            if results is not None and results[0].size == sum(array.size for array in arrays):
                return results[0]
            del pieces[found:]
        numbered = self._numbered(value, sum(codes.size for _, _, codes in pieces))
        pieces.append((value, reader, numbered))
        return numbered

    def _positions(self, part: _Part) -> ir.Value:
        return _constant(self._model, f"{part.value.name}/positions", np.arange(len(part.entries))[:, None])

    def _take(self, part: _Part, positions: ir.Value) -> None:
        """Read the entries at some positions."""
        value, uses = part.value, list(part.value.uses())
        first, order = self._units_first(part)
        taken = ir.node("GatherND", [first.outputs[0], positions])
        back = ir.node("Transpose", [taken.outputs[0]], {"perm": _inverse(order)})
        self._insert([first, taken, back], value, _TAKEN)
        for reader, slot in uses:
            reader.replace_input_with(slot, back.outputs[0])

    def _put_back(self, part: _Part, positions: ir.Value) -> None:
        """Write the entries into zeros."""
        model, value, name = self._model, part.value, part.value.name or ""
        first, order = self._units_first(part)
        size = _constant(model, f"{name}/size", np.array([len(part.entries)]))
        zero = ir.Tensor(np.zeros(1, self._analysis.shapes.dtypes[name].numpy()))
        sizes = ir.node("Shape", [value])
        rest = ir.node("Gather", [sizes.outputs[0], _constant(model, f"{name}/others", np.array(order[1:]))])
        whole = ir.node("Concat", [size, rest.outputs[0]], {"axis": 0})
        zeros = ir.node("ConstantOfShape", [whole.outputs[0]], {"value": zero})
        written = ir.node("ScatterND", [zeros.outputs[0], positions, first.outputs[0]])
        back = ir.node("Transpose", [written.outputs[0]], {"perm": _inverse(order)})
        self._insert([sizes, rest, whole, zeros, first, written, back], value, _PUT_BACK)
        if part.reader is not None:
            part.reader[0].replace_input_with(part.reader[1], back.outputs[0])
            return
        model.graph.outputs[list(model.graph.outputs).index(value)] = back.outputs[0]
        value.name, back.outputs[0].name = f"{name}/units", name

    def _units_first(self, part: _Part) -> tuple[ir.Node, list[int]]:
        """A node that moves the axis of the units to the front, and the order of the axes behind it."""
        order = [part.axis, *(axis for axis in range(len(self._shape(part.value))) if axis != part.axis)]
        return ir.node("Transpose", [part.value], {"perm": order}), order

    def _insert(self, nodes: list[ir.Node], value: ir.Value, name: str) -> None:
        """Put nodes behind a value, of whose type and shape the last one's output is."""
        for number, node in enumerate(nodes):
            node.name = node.outputs[0].name = f"{value.name}/{number}{name}"
        nodes[-1].outputs[0].shape, nodes[-1].outputs[0].type = value.shape, value.type
        producer = value.producer()
        if producer is None:
            self._model.graph.insert_before(self._model.graph[0], nodes)
        else:
            self._model.graph.insert_after(producer, nodes)


def _inverse(order: list[int]) -> list[int]:
    return [int(place) for place in np.argsort(order)]


def _constant(model: ir.Model, name: str, array: npt.NDArray[np.int64]) -> ir.Value:
    while name in model.graph.initializers:
        name = f"_{name}"
    tensor = ir.Tensor(array.astype(np.int64), name=name)
    value = ir.Value(name=name, shape=ir.Shape(tensor.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    model.graph.register_initializer(value)
    return value
