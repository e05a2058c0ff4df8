"""Sizes of dynamic axes at which a graph agrees with itself: what it demands of its inputs, searched backwards.

An exporter may leave an axis open though the model takes one size only: a text recognizer whose height has to come out
as one row, a voice detector whose frames fill one state, two inputs that are added. What operators demand is in
`ops.demands`; here sizes are changed until no node is left that its inputs do not fit. Nothing is run for it: what is
asked is one pass of shape inference for each try.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import onnx_ir as ir

from onnxprune.analysis.shape_inference import Shapes
from onnxprune.model.signature import Port, ports_of
from onnxprune.ops.demands import Demand, NodeView, find_demands

Bindings = dict[str, int]
Infer = Callable[[Bindings], Shapes]

# No axis is searched beyond this.
_LARGEST = 1 << 16
# Tried for axes that have to be a multiple of something.
_MULTIPLES = (16, 32, 48, 64, 96, 112, 128, 224, 256, 320, 384, 448, 512, 640, 1024)
# Of more symbols than this, no pairs are tried: they are too many.
_MOST_SYMBOLS = 12
# The search ends after about so many nodes in all passes: some ten seconds.
_MOST_NODES = 200_000


@dataclass(frozen=True)
class Unmet:
    """A demand that the inputs of a node do not meet: which, and by how much."""

    node: ir.Node
    demand: Demand
    excess: int


@dataclass(frozen=True)
class Agreement:
    """The findings about dynamic axes.

    Attributes:
        sizes: of axes that are not free, by symbol: the roundest that fits, and another one, if there is.
        ties: symbols that have the size of another one, by symbol.
    """

    sizes: Mapping[str, tuple[int, int]]
    ties: Mapping[str, str]

    def applied(self, bindings: Mapping[str, int], turn: int) -> Bindings:
        """All sizes, the free ones as in `bindings`; those that are not free in two `turns`, 0 and 1."""
        free = {**bindings, **{symbol: both[turn] for symbol, both in self.sizes.items()}}
        return {symbol: free[self.ties.get(symbol, symbol)] for symbol in free}


def unmet(model: ir.Model, shapes: Shapes) -> Iterator[Unmet]:
    """The demands that are not met, in the order of the graph."""
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for demand in _demands(node, shapes):
            excess = demand.excess(_shapes(node, shapes))
            if excess:
                yield Unmet(node, demand, excess)


def misfits(model: ir.Model, shapes: Shapes) -> int:
    """How often inputs do not fit a node."""
    return len(shapes.failures) + sum(1 for _ in unmet(model, shapes))


def troubles(model: ir.Model, shapes: Shapes) -> int:
    """The same, with the nodes behind of which nothing is known for it: fewer of them is further along."""
    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    unknown = sum(any(value.name and value.name not in shapes.shapes for value in node.outputs) for node in nodes)
    return misfits(model, shapes) + unknown


def agree(model: ir.Model, start: Mapping[str, int], fixed: set[str], infer: Infer) -> Agreement:
    """Change sizes until the graph agrees with itself, or no change makes it better.

    Args:
        model: it is left as it is.
        start: a size for every symbol.
        fixed: symbols whose size the user has given; these are not changed.
        infer: a pass of shape inference.
    """
    search = _SizeSearch(model, dict(start), fixed, infer)
    with contextlib.suppress(_TooLongError):
        while search.improve():
            pass
    return Agreement(search.sizes, search.ties)


class _TooLongError(Exception):
    """The search has taken its time."""


class _SizeSearch:
    """Sizes so far, and what is still wrong with them."""

    def __init__(self, model: ir.Model, bindings: Bindings, fixed: set[str], infer: Infer) -> None:
        self._model = model
        self._bindings = bindings
        self._infer_at = infer
        self._left = _MOST_NODES
        ports = ports_of(model)
        batch = {port.batch_symbol for port in ports}
        self._inputs = {symbol: {port.name for port in ports if symbol in _symbols(port)} for symbol in bindings}
        free = [symbol for symbol in bindings if symbol not in fixed]
        rest = [symbol for symbol in free if symbol not in batch]
        self._groups = [[symbol] for symbol in rest]
        self._groups += [rest] if len(rest) > 1 else []
        self._groups += [[symbol for symbol in free if symbol in batch]]  # what varies most is changed last
        self._free = free
        self.sizes: dict[str, tuple[int, int]] = {}
        self.ties: dict[str, str] = {}
        self._troubles = troubles(model, infer(self._bindings))

    def improve(self) -> bool:
        """One change that leaves fewer nodes that do not fit; False where there is none."""
        if not misfits(self._model, self._infer(self._bindings)):
            return False
        return any(any(attempt) for attempt in (self._tie(), self._solve(), self._multiply()))

    def _better(self, change: Bindings) -> bool:
        """Make a change, if that leaves fewer nodes that do not fit."""
        left = self._count(change)
        if left >= self._troubles:
            return False
        self._bindings.update(change)
        self._troubles = left
        return True

    def _infer(self, bindings: Bindings) -> Shapes:
        self._left -= len(self._model.graph)
        if self._left < 0:
            raise _TooLongError
        return self._infer_at(bindings)

    def _count(self, change: Bindings) -> int:
        return troubles(self._model, self._infer({**self._bindings, **change}))

    def _tie(self) -> Iterator[bool]:
        """Axes of different inputs that have the same size."""
        if len(self._bindings) > _MOST_SYMBOLS:
            return
        for one, other in combinations(self._bindings, 2):
            apart = self._inputs[one].isdisjoint(self._inputs[other])
            if apart and other in self._free and self._better({other: self._bindings[one]}):
                self.ties[other] = self.ties.get(one, one)
                yield True

    def _solve(self) -> Iterator[bool]:
        """Sizes that meet the first demand that is not met."""
        first = next(unmet(self._model, self._infer(self._bindings)), None)
        if first is None or first.demand.kind == "multiple":
            return
        place = (first.demand.slot, first.demand.axis)
        for group in filter(None, self._groups):
            both = _zero(partial(self._excess, first.node, place, group))
            if both is not None and self._better(dict.fromkeys(group, both[0])):
                self.sizes.update(dict.fromkeys(group, both))
                yield True

    def _excess(self, node: ir.Node, place: tuple[int, int | None], group: list[str], size: int) -> int:
        """Of the demand on one place; a graph that breaks off before is one whose inputs are too small."""
        shapes = self._infer({**self._bindings, **dict.fromkeys(group, size)})
        own = _shapes(node, shapes)
        if own[place[0]] is None or any(each.demand.kind == "least" for each in unmet(self._model, shapes)):
            return -1
        made = (each for each in _demands(node, shapes) if (each.slot, each.axis) == place)
        demand = next(made, None)
        return 0 if demand is None else demand.excess(own)

    def _multiply(self) -> Iterator[bool]:
        """Axes that have to be a multiple of something."""
        for group in filter(None, self._groups):
            for size in _MULTIPLES:
                if self._better(dict.fromkeys(group, size)):
                    other = size if self._count(dict.fromkeys(group, 2 * size)) > self._troubles else 2 * size
                    self.sizes.update(dict.fromkeys(group, (size, other)))
                    yield True


def _zero(excess: Callable[[int], int]) -> tuple[int, int] | None:
    """The roundest number where a function that never falls is zero, and another; None where it is nowhere."""
    low = _first(lambda size: excess(size) >= 0)
    if low is None or excess(low):
        return None
    beyond = _first(lambda size: excess(size) > 0)
    high = low if beyond is None else beyond - 1
    high = min(high, 2 * low)
    roundest = max(range(low, high + 1), key=lambda size: (size & -size, -size))
    return roundest, low if roundest != low else high


def _first(holds: Callable[[int], bool]) -> int | None:
    """The least size from which on something holds."""
    high = 1
    while not holds(high):
        high *= 2
        if high > _LARGEST:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _demands(node: ir.Node, shapes: Shapes) -> Iterator[Demand]:
    rule = find_demands(node)
    if rule is None:
        return iter(())
    known = [None if value is None else shapes.known.get(value.name or "") for value in node.inputs]
    return rule(NodeView(node, _shapes(node, shapes), known))


def _shapes(node: ir.Node, shapes: Shapes) -> list[tuple[int, ...] | None]:
    return [None if value is None else shapes.shapes.get(value.name or "") for value in node.inputs]


def _symbols(port: Port) -> set[str]:
    return {port.symbol(axis) for axis, size in enumerate(port.shape) if not isinstance(size, int)}
