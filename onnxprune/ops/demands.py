"""Which sizes operators demand of their inputs: what a graph says about inputs that it leaves open.

A demand is a function under `@demands(...)` that gets a node with the shapes and known contents of its inputs:

    @demands("Squeeze")
    def squeeze(op):
        yield Demand(slot=0, axis=2, size=1)

Only what a run would refuse is demanded; `analysis.input_sizes` searches the sizes of inputs that meet all demands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import onnx_ir as ir

from onnxprune.ops.base import Array, Key, attribute, key_of

Shape = tuple[int, ...]
Shapes = Sequence[Shape | None]


@dataclass(frozen=True)
class Demand:
    """A condition on the input in a slot.

    Attributes:
        slot: of the input.
        axis: which of its axes; None: all of its entries are counted.
        size: what the axis or the count has to be.
        kind: "multiple" where any multiple of `size` will do, "least" where anything from it on.
    """

    slot: int
    axis: int | None
    size: int
    kind: Literal["equal", "multiple", "least"] = "equal"

    def found(self, shapes: Shapes) -> int | None:
        """The size or count; None where that is not known."""
        shape = shapes[self.slot] if self.slot < len(shapes) else None
        if shape is None or (self.axis is not None and not -len(shape) <= self.axis < len(shape)):
            return None
        return prod(shape) if self.axis is None else shape[self.axis]

    def excess(self, shapes: Shapes) -> int:
        """By how much it is too large, or with a minus too small; 0 where it is met, or not known."""
        found = self.found(shapes)
        if found is None:
            return 0
        if self.kind == "multiple":
            return found % self.size
        return min(found - self.size, 0) if self.kind == "least" else found - self.size


@dataclass(frozen=True)
class NodeView:
    """A node with the shapes and, where they are known, the contents of its inputs."""

    node: ir.Node
    shapes: Shapes
    known: Sequence[Array | None]


Rule = Callable[[NodeView], Iterator[Demand]]
_RULES: dict[Key, Rule] = {}


def demands(*names: str) -> Callable[[Rule], Rule]:
    """Decorator: what standard operators of these names demand."""

    def add(rule: Rule) -> Rule:
        _RULES.update({("", name): rule for name in names})
        return rule

    return add


def find_demands(node: ir.Node) -> Rule | None:
    """The rule of a node's operator; None where it demands nothing."""
    return _RULES.get(key_of(node))


@demands("Squeeze")
def squeeze(op: NodeView) -> Iterator[Demand]:
    """Axes that go have one entry."""
    axes = attribute(op.node, "axes")
    if axes is None and len(op.known) > 1 and op.known[1] is not None:
        axes = op.known[1].ravel().tolist()
    for axis in axes or ():
        yield Demand(0, int(axis), 1)


@demands("Reshape")
def reshape(op: NodeView) -> Iterator[Demand]:
    """As many entries as the target has; with an open entry a multiple of the others."""
    shape, target = op.shapes[0], op.known[1] if len(op.known) > 1 else None
    if shape is None or target is None or target.ndim != 1:
        return
    sizes = [int(size) for size in target]
    if not attribute(op.node, "allowzero", 0):
        if any(size == 0 and place >= len(shape) for place, size in enumerate(sizes)):
            return
        sizes = [size or shape[place] for place, size in enumerate(sizes)]
    fixed = prod(size for size in sizes if size != -1)
    if fixed > 0:
        yield Demand(0, None, fixed, kind="multiple" if -1 in sizes else "equal")


@demands("MatMul")
def matmul(op: NodeView) -> Iterator[Demand]:
    """Both factors have the size that is summed over."""
    a, b = op.shapes[:2]
    if a and b:
        summed = b[-2] if len(b) > 1 else b[0]
        yield Demand(0, -1, summed)
        yield Demand(1, -2 if len(b) > 1 else 0, a[-1])


@demands("Gemm")
def gemm(op: NodeView) -> Iterator[Demand]:
    """Both factors have the size that is summed over."""
    a, b = op.shapes[:2]
    if a and b and len(a) == len(b) == 2:
        of_a, of_b = 0 if attribute(op.node, "transA", 0) else 1, 1 if attribute(op.node, "transB", 0) else 0
        yield Demand(0, of_a, b[of_b])
        yield Demand(1, of_b, a[of_a])


@demands("LSTM", "GRU", "RNN")
def recurrent(op: NodeView) -> Iterator[Demand]:
    """The features that the weights have; states of as many samples as there are."""
    x, weight, recurrence = op.shapes[:3]
    if x is None or weight is None or recurrence is None or len(x) != 3:
        return
    yield Demand(0, 2, weight[2])
    batch = 0 if attribute(op.node, "layout", 0) else 1
    if len(op.shapes) > 4 and op.shapes[4]:
        yield Demand(4, 0, x[batch])
    for slot in (5, 6):
        if len(op.shapes) > slot and op.shapes[slot]:
            yield Demand(slot, batch if batch == 1 else 0, x[batch])
            yield Demand(slot, 2, recurrence[2])


@demands("Conv", "MaxPool", "AveragePool", "LpPool")
def sliding(op: NodeView) -> Iterator[Demand]:
    """The channels that the weights have; room for one window."""
    x, weight = op.shapes[0], op.shapes[1] if len(op.shapes) > 1 else None
    if x is None or len(x) < 3:
        return
    if weight is not None:
        yield Demand(0, 1, weight[1] * attribute(op.node, "group", 1))
    window = attribute(op.node, "kernel_shape") or (() if weight is None else weight[2:])
    if attribute(op.node, "auto_pad", "NOTSET") != "NOTSET":
        return
    pads, dilations = attribute(op.node, "pads"), attribute(op.node, "dilations")
    for axis, size in enumerate(window):
        beside = 0 if pads is None else pads[axis] + pads[axis + len(window)]
        yield Demand(0, axis + 2, 1 + (size - 1) * (1 if dilations is None else dilations[axis]) - beside, "least")


@demands("Add", "Sub", "Mul", "Div", "Where", "Pow", "Min", "Max", "Equal", "Less", "Greater")
def aligned(op: NodeView) -> Iterator[Demand]:
    """Axes from the last on have the same size, or one entry."""
    for slot, shape in enumerate(op.shapes):
        for other in (each for each in op.shapes if each is not None and each is not shape):
            for axis in range(1, min(len(shape or ()), len(other)) + 1):
                size = (shape or ())[-axis]
                if size != other[-axis] and 1 not in (size, other[-axis]):
                    yield Demand(slot, -axis, other[-axis])


@demands("Concat")
def joined(op: NodeView) -> Iterator[Demand]:
    """All axes but the one that they are joined along have the same size."""
    along = attribute(op.node, "axis", 0)
    for slot, shape in enumerate(op.shapes):
        other = op.shapes[0] if slot else next(iter(op.shapes[1:]), None)
        if shape and other and len(shape) == len(other):
            yield from (Demand(slot, axis, size) for axis, size in enumerate(other) if axis != along % len(other))
