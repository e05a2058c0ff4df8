"""The exact cost of many cuts of one model: a sum of terms, each of which depends on a few groups.

`cost.measure` looks at every node; an allocation asks thousands of times and changes one group at a time. Here every
weight and every node is a term that remembers what it costs for the counts of its own groups, so that a question looks
at what has changed only. Nothing is linearized: what a unit saves depends on what is left of its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import onnx_ir as ir

from onnxprune.analysis.cost import Cost, node_macs
from onnxprune.analysis.groups import Analysis
from onnxprune.dims import Atom, Dim, atoms, kept_size
from onnxprune.model.weights import is_parameter
from onnxprune.ops import find_cost
from onnxprune.ops.base import key_of

Counts = Mapping[Atom, int]
Amounts = tuple[int, int, int]  # parameters, MACs, bytes of weights


class CostTerms:
    """Costs of an analysed model by how many units are kept in each atom; equal to `cost.measure`."""

    def __init__(self, analysis: Analysis) -> None:
        prunable = {group.atom for group in analysis.groups}
        self._nodes = len(analysis.model.graph)
        self._terms: list[_Term] = []
        self._by_atom: dict[Atom, list[_Term]] = {atom: [] for atom in prunable}
        self._constant: Amounts = (0, 0, 0)
        shapes = _Shapes(analysis, prunable)
        for names, amounts in (*_weights(analysis, shapes), *_operators(analysis, shapes)):
            inside = {atom for name in names for dim in analysis.dims.get(name, ()) for atom in atoms(dim)}
            term = _Term(tuple(inside & prunable), amounts)
            if term.atoms:
                self._terms.append(term)
                for atom in term.atoms:
                    self._by_atom[atom].append(term)
            else:
                self._constant = _sum(self._constant, term({}))

    def measure(self, kept: Counts) -> Cost:
        """The cost with `kept` units left in each atom; atoms that are not named stay whole."""
        parameters, macs, weight_bytes = _sum(self._constant, *(term(kept) for term in self._terms))
        return Cost(parameters, macs, weight_bytes, self._nodes)

    def saved(self, kept: Counts, atom: Atom, count: int) -> Amounts:
        """Parameters, MACs and bytes that go when `atom` comes down to `count` units, all else being as in `kept`."""
        after = {**kept, atom: count}
        parameters = macs = weight_bytes = 0
        for term in self._by_atom[atom]:
            now, then = term(kept), term(after)
            parameters, macs, weight_bytes = (
                parameters + now[0] - then[0],
                macs + now[1] - then[1],
                weight_bytes + now[2] - then[2],
            )
        return parameters, macs, weight_bytes

    def neighbours(self, atom: Atom) -> set[Atom]:
        """The atoms that change what a unit of `atom` saves, itself included."""
        return {other for term in self._by_atom[atom] for other in term.atoms}


class _Term:
    """What one weight or node costs, by the counts of its atoms; remembered."""

    def __init__(self, inside: tuple[Atom, ...], amounts: Callable[[Counts], Amounts]) -> None:
        self.atoms = inside
        self._amounts = amounts
        self._known: dict[tuple[int, ...], Amounts] = {}

    def __call__(self, kept: Counts) -> Amounts:
        key = tuple(kept.get(atom, atom.size) for atom in self.atoms)
        if key not in self._known:
            self._known[key] = self._amounts(kept)
        return self._known[key]


def _sum(*amounts: Amounts) -> Amounts:
    return sum(each[0] for each in amounts), sum(each[1] for each in amounts), sum(each[2] for each in amounts)


class _Shapes:
    """Shapes of values by how many units are kept; axes that no group is in are looked at once."""

    def __init__(self, analysis: Analysis, prunable: set[Atom]) -> None:
        self._dims, self._prunable = analysis.dims, prunable
        self._axes: dict[str, list[int | Dim]] = {}

    def __call__(self, name: str, kept: Counts) -> tuple[int, ...] | None:
        """The shape; None where it is not known."""
        dims = self._dims.get(name)
        if dims is None:
            return None
        if name not in self._axes:
            self._axes[name] = [kept_size(dim, {}) if self._prunable.isdisjoint(atoms(dim)) else dim for dim in dims]
        return tuple(axis if isinstance(axis, int) else kept_size(axis, kept) for axis in self._axes[name])


def _weights(analysis: Analysis, shapes: _Shapes) -> list[tuple[list[str], Callable[[Counts], Amounts]]]:
    def of(name: str, bits: int) -> Callable[[Counts], Amounts]:
        def amounts(kept: Counts) -> Amounts:
            size = prod(shapes(name, kept) or ())
            return size, 0, (size * bits + 7) // 8

        return amounts

    weights = [v for v in analysis.model.graph.initializers.values() if v.const_value is not None and is_parameter(v)]
    return [([v.name or ""], of(v.name or "", v.const_value.dtype.bitwidth)) for v in weights if v.const_value]


def _operators(analysis: Analysis, shapes: _Shapes) -> list[tuple[list[str], Callable[[Counts], Amounts]]]:
    def of(node: ir.Node) -> Callable[[Counts], Amounts]:
        return lambda kept: (0, node_macs(node, lambda name: shapes(name, kept)), 0)

    nodes = ir.traversal.RecursiveGraphIterator(analysis.model.graph)
    return [
        ([value.name or "" for value in (*node.inputs, *node.outputs) if value is not None], of(node))
        for node in nodes
        if find_cost(key_of(node)) is not None
    ]
