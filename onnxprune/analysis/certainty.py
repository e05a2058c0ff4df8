"""Which numbers hold at every size of the dynamic axes, rather than at the few sizes that were tried.

Passes at several sizes (see analysis.shapes) agree on `batch == 16` without proving it. A number is certain where the
operators on the way to it are sums, products and moves of sizes, which a few unequal sizes tell apart; where the
sizes do not enter; or where a division comes out even with the same quotient every time. Anything else that a dynamic
size goes into (a comparison, a minimum, a remainder, a choice) is doubtful, and so is an axis that such a number sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.analysis.shape_inference import Shapes
from onnxprune.model.graph import subgraphs
from onnxprune.ops.base import Array
from onnxprune.ops.compute import compute
from onnxprune.ops.evaluate import constant_tensor, is_sized_by_content, shape_of
from onnxprune.ops.proof import Proof, copies_other_axes, infers_size, moved_inputs, proof_of, takes_part, target_slot


def doubtful(model: ir.Model, passes: Sequence[Shapes]) -> tuple[set[str], set[tuple[str, int]]]:
    """Values that came out the same in all passes and axes of the same size in all, without that being certain."""
    walk = _Walk(passes, dict(model.graph.opset_imports))
    for value in model.graph.initializers.values():
        walk.settle(value.name or "")
    walk.doubt_inputs(model.graph.inputs)
    walk.visit(model.graph)
    values = {name for name, sure in walk.sure.items() if not sure.all()}
    return values, walk.sized


class _Walk:
    """Certainty of one value after another, those that a node reads first.

    Attributes:
        sure: per known value and entry: is it a sum of products of sizes, and so distinguished by the sizes tried?
        sized: axes whose size a doubtful number says.
    """

    def __init__(self, passes: Sequence[Shapes], opsets: dict[str, int]) -> None:
        self.passes = passes
        self.opsets = opsets
        self.sure: dict[str, Array] = {}
        self.sized: set[tuple[str, int]] = set()
        self._carried: set[tuple[str, int]] = set()

    def settle(self, name: str) -> None:
        """The value is a constant of the file."""
        if name in self.passes[0].known:
            self.sure[name] = np.ones(self.passes[0].known[name].shape, np.bool_)

    def doubt_inputs(self, inputs: Iterable[ir.Value]) -> None:
        """Dynamic axes of inputs that had one size in all passes, for want of another that the model takes."""
        for value in inputs:
            for axis, size in enumerate(value.shape or ()):
                if not isinstance(size, int) and self._agreed(value.name or "", axis):
                    self.sized.add((value.name or "", axis))

    def visit(self, nodes: Iterable[ir.Node]) -> None:
        """Every node in order, the bodies inside one before it."""
        for node in nodes:
            for body in subgraphs(node):
                for value in body.initializers.values():
                    self.settle(value.name or "")
                self.visit(body)
            if constant_tensor(node) is not None:
                self.settle(node.outputs[0].name or "")
                continue
            known = [value for value in node.outputs if value.name in self.passes[0].known]
            for value, sure in zip(known, self._certainty(node) if known else (), strict=False):
                shape = self.passes[0].known[value.name or ""].shape
                self.sure[value.name or ""] = sure if sure.shape == shape else np.zeros(shape, np.bool_)
            self._note_axes(node)

    # -- numbers

    def _certainty(self, node: ir.Node) -> list[Array]:
        """Per output which entries are certain."""
        first = node.inputs[0] if node.inputs else None
        if first is not None and shape_of(node, (1,)) is not None:
            name, shape = first.name or "", self.passes[0].shapes[first.name or ""]
            certain = tuple(int((name, axis) not in self.sized | self._carried) for axis in range(len(shape)))
            found = shape_of(node, certain)
            assert found is not None
            return [found.astype(np.bool_)]
        names = [None if value is None else value.name or "" for value in node.inputs]
        if any(name is not None and name not in self.sure for name in names):
            return self._all(node, certain=False)
        proof = proof_of(node)
        if proof in (Proof.SUM, Proof.WHOLE, Proof.RETYPED, Proof.QUOTIENT, Proof.ENTRYWISE):
            return [self._entrywise(node, proof, [name for name in names if name is not None])]
        if proof is Proof.MOVED:
            return self._moved(node, names)
        if proof is Proof.REDUCED:
            return self._all(node, certain=all(self.sure[name].all() for name in names if name is not None))
        return self._all(node, certain=all(self._settled(name).all() for name in names if name is not None))

    def _entrywise(self, node: ir.Node, proof: Proof, names: list[str]) -> Array:
        """Sums and products of certain entries are certain; anything else where it does not vary."""
        out = node.outputs[0].name or ""
        settled = _conjunction([self._settled(name) for name in names])
        sure = _conjunction([self.sure[name] for name in names])
        if proof is Proof.SUM:
            return sure
        if proof is Proof.QUOTIENT:
            even = self._always(lambda known: known[out] * known[names[1]] == known[names[0]])
            return settled | (sure & even & self._constant(out))
        if proof in (Proof.WHOLE, Proof.RETYPED):
            same = self._always(lambda known: known[out] == known[names[0]])
            return settled | (sure & same & (self._constant(out) if proof is Proof.WHOLE else True))
        return settled

    def _moved(self, node: ir.Node, names: list[str | None]) -> list[Array]:
        """Entries go where the operator takes them, provided that nothing doubtful says where."""
        data = moved_inputs(node)
        if not all(self._settled(name).all() for name in names[data:] if name is not None):
            return self._all(node, certain=False)
        arrays = [
            None if name is None else self.sure[name] if i < data else self.passes[0].known[name]
            for i, name in enumerate(names)
        ]
        return compute(node, arrays, self.opsets) or self._all(node, certain=False)

    def _all(self, node: ir.Node, *, certain: bool) -> list[Array]:
        arrays = [self.passes[0].known[value.name] for value in node.outputs if value.name in self.passes[0].known]
        return [np.full(array.shape, certain) for array in arrays]

    def _settled(self, name: str) -> Array:
        return self.sure[name] & self._constant(name)

    def _constant(self, name: str) -> Array:
        """Which entries are the same in all passes."""
        first = self.passes[0].known[name]
        return self._always(lambda known: known[name] == first, shape=first.shape)

    def _always(self, holds: Callable[[Mapping[str, Array]], Array], shape: tuple[int, ...] = ()) -> Array:
        """Where it holds in every pass that knows the numbers; nowhere if shapes differ."""
        result = np.ones(shape, np.bool_)
        for found in self.passes:
            try:
                result = result & holds(found.known)
            except KeyError:  # this pass did not get that far
                continue
            except ValueError:
                return np.zeros(shape, np.bool_)
        return result if not shape or result.shape == shape else np.zeros(shape, np.bool_)

    # -- axes

    def _note_axes(self, node: ir.Node) -> None:
        """Axes that doubtful numbers size, and behind them axes of the same size, which may be the same axes."""
        for value in node.outputs:
            shape = self.passes[0].shapes.get(value.name or "", ())
            if is_sized_by_content(node):
                agreed = [axis for axis in range(len(shape)) if self._agreed(value.name or "", axis)]
                axes = [axis for axis in agreed if self._sizes(node, axis - len(shape))]
                self.sized.update((value.name or "", axis) for axis in axes)
            weak = {
                self.passes[0].shapes[given.name or ""][axis]
                for given in node.inputs
                if given is not None and given.name in self.passes[0].shapes
                for axis in range(len(self.passes[0].shapes[given.name]))
                if (given.name, axis) in self.sized or (given.name, axis) in self._carried
            }
            self._carried.update((value.name or "", axis) for axis, size in enumerate(shape) if size in weak)

    def _agreed(self, name: str, axis: int) -> bool:
        """Has the axis the same size in all passes?"""
        shapes = [found.shapes[name] for found in self.passes if name in found.shapes]
        return len({shape[axis] for shape in shapes if len(shape) == len(shapes[0])}) == 1

    def _sizes(self, node: ir.Node, axis: int) -> bool:
        """Does a doubtful number say the size of this axis of the output, counted from the last?"""
        slot = target_slot(node)
        for index, given in enumerate(node.inputs):
            name = "" if given is None else given.name or ""
            sure = self.sure.get(name)
            if sure is None or sure.all() or not takes_part(node, index):
                continue
            if slot is None:
                return not self._passes_through(node, axis)
            if index == slot and -axis <= sure.size:
                return bool(infers_size(node, self.passes[0].known[name].ravel()[axis]) or not sure.ravel()[axis])
        return False

    def _passes_through(self, node: ir.Node, axis: int) -> bool:
        """Has the axis the size that the first input's has there, which no number of this node is about?"""
        x, y = ("" if value is None else value.name or "" for value in (node.inputs[0], node.outputs[0]))
        shapes = self.passes[0].shapes
        alike = len(shapes.get(x, ())) == len(shapes.get(y, ())) and copies_other_axes(node)
        return alike and shapes[x][axis] == shapes[y][axis]


def _conjunction(arrays: list[Array]) -> Array:
    result = arrays[0]
    for array in arrays[1:]:
        result = result & array
    return np.asarray(result)
