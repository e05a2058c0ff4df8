"""The exact cost of many cuts of one model, as a polynomial in the numbers of units that are kept.

`cost.measure` looks at every node; an allocation asks thousands of times and changes one group at a time. Axes are sums
and products of groups, and costs are sums of products of axes. So the rules of cost are run once, on polynomials in
place of numbers, and what a unit saves is read from the products that its group is in. Nothing is linearized: what a
unit saves depends on what is left of its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import Any

import onnx_ir as ir

from onnxprune.analysis.cost import Cost, ShapeOf, node_macs, shapes_after
from onnxprune.analysis.groups import Analysis
from onnxprune.dims import Atom, atoms
from onnxprune.model.weights import is_weight
from onnxprune.ops import find_cost
from onnxprune.ops.base import key_of
from onnxprune.ops.traits import is_parameter

Counts = Mapping[Atom, int]
Amounts = tuple[int, int, int]  # parameters, MACs, bytes of weights
Monomial = tuple[int, ...]  # groups that are multiplied, by their numbers, ascending; a square has one twice
NOTHING: Amounts = (0, 0, 0)


class CostTerms:
    """Costs of an analysed model by how many units are kept in each atom; equal to `cost.measure`.

    Args:
        analysis: the model.
        bits: of each entry of a weight by its name, where it is to be stored as something else than it is now.
    """

    def __init__(self, analysis: Analysis, bits: Mapping[str, int] | None = None) -> None:
        self._nodes = len(analysis.model.graph)
        groups = [group.atom for group in analysis.groups]
        unknown = {atom: Polynomial({(number,): 1}) for number, atom in enumerate(groups)}
        amounts: dict[Monomial, Amounts] = {}
        self._others: list[_Other] = []
        shape_of = shapes_after(analysis, unknown)  # type: ignore[arg-type]  # polynomials in place of numbers
        for names, cost in (*_weights(analysis, bits or {}), *_operators(analysis)):
            try:
                found = [Polynomial.of(amount).terms for amount in cost(shape_of)]
            except TypeError:
                self._others.append(_Other(analysis, names, cost))
                continue
            for monomial in {monomial for terms in found for monomial in terms}:
                parameters, macs, weight_bytes = (terms.get(monomial, 0) for terms in found)
                amounts[monomial] = _plus(amounts.get(monomial, NOTHING), (parameters, macs, weight_bytes))
        self._products = [_Product(tuple(groups[i] for i in monomial), each) for monomial, each in amounts.items()]
        self._by_atom: dict[Atom, dict[int, list[_Product]]] = {atom: {} for atom in groups}
        for product in self._products:
            for atom in set(product.atoms):
                power = product.atoms.count(atom)
                self._by_atom[atom].setdefault(power, []).append(product.without(atom))

    def measure(self, kept: Counts) -> Cost:
        """The cost with `kept` units left in each atom; atoms that are not named stay whole."""
        total = _total(self._products, kept)
        for other in self._others:
            total = _plus(total, other(kept))
        return Cost(*total, self._nodes)

    def macs(self, kept: Mapping[Atom, Any]) -> Any:
        """MACs with `kept` units left: torch scalars too, not whole ones; what is not a polynomial rounds them."""
        total: Any = 0
        for product in self._products:
            ways: Any = product.amounts[1]
            for atom in product.atoms if ways else ():
                ways = ways * kept.get(atom, atom.size)
            total = total + ways
        whole = {atom: round(float(count)) for atom, count in kept.items()} if self._others else {}
        return total + sum(other(whole)[1] for other in self._others)

    def saved(self, kept: Counts, atom: Atom, count: int) -> Amounts:
        """Parameters, MACs and bytes that go when `atom` comes down to `count` units, all else being as in `kept`."""
        now, saved = kept.get(atom, atom.size), NOTHING
        for power, products in self._by_atom[atom].items():
            saved = _plus(saved, _total(products, kept), now**power - count**power)
        for other in self._others:
            if atom in other.atoms:
                saved = _plus(_plus(saved, other(kept)), other({**kept, atom: count}), -1)
        return saved


class Polynomial:
    """A sum of products of unit counts, which a rule of cost adds and multiplies as it does with numbers.

    Whatever else a rule does with it (compare, round) raises TypeError.
    """

    __slots__ = ("terms",)

    def __init__(self, terms: dict[Monomial, int]) -> None:
        self.terms = terms

    @classmethod
    def of(cls, number: Polynomial | int) -> Polynomial:
        """A number as a polynomial."""
        return number if isinstance(number, Polynomial) else cls({(): number})

    def __add__(self, other: Polynomial | int) -> Polynomial:
        terms = dict(self.terms)
        for monomial, factor in self.of(other).terms.items():
            terms[monomial] = terms.get(monomial, 0) + factor
        return Polynomial(terms)

    def __mul__(self, other: Polynomial | int) -> Polynomial:
        terms: dict[Monomial, int] = {}
        others = self.of(other).terms.items()
        for mine, factor in self.terms.items():
            for its, times in others:
                monomial = tuple(sorted(mine + its))
                terms[monomial] = terms.get(monomial, 0) + factor * times
        return Polynomial(terms)

    __radd__, __rmul__ = __add__, __mul__

    def __sub__(self, other: Polynomial | int) -> Polynomial:
        return self + self.of(other) * -1

    def __floordiv__(self, number: int) -> Polynomial:
        if any(factor % number for factor in self.terms.values()):
            raise TypeError("not a polynomial")
        return Polynomial({monomial: factor // number for monomial, factor in self.terms.items()})

    def __eq__(self, other: object) -> bool:
        raise TypeError("whether it is equal depends on the counts")

    def __bool__(self) -> bool:
        raise TypeError("whether it is zero depends on the counts")

    __hash__ = None  # type: ignore[assignment]


class _Product:
    """Amounts that are there once for every way to take a unit from each of some atoms."""

    __slots__ = ("amounts", "atoms")

    def __init__(self, atoms_: tuple[Atom, ...], amounts: Amounts) -> None:
        self.atoms, self.amounts = atoms_, amounts

    def without(self, atom: Atom) -> _Product:
        """The factor of all powers of an atom."""
        return _Product(tuple(other for other in self.atoms if other is not atom), self.amounts)


def _total(products: Iterable[_Product], kept: Counts) -> Amounts:
    parameters = macs = weight_bytes = 0
    for product in products:
        ways = 1
        for atom in product.atoms:
            ways *= kept.get(atom, atom.size)
        each = product.amounts
        parameters, macs, weight_bytes = (
            parameters + ways * each[0],
            macs + ways * each[1],
            weight_bytes + ways * each[2],
        )
    return parameters, macs, weight_bytes


def _plus(one: Amounts, other: Amounts, times: int = 1) -> Amounts:
    return one[0] + times * other[0], one[1] + times * other[1], one[2] + times * other[2]


class _Other:
    """The cost of a weight or node that is not a polynomial, by the counts of its atoms; remembered."""

    def __init__(self, analysis: Analysis, names: Iterable[str], cost: Callable[[ShapeOf], Amounts]) -> None:
        dims = [dim for name in names for dim in analysis.dims.get(name, ())]
        inside = {atom for dim in dims for atom in atoms(dim)}
        self.atoms = tuple(group.atom for group in analysis.groups if group.atom in inside)
        self._analysis, self._cost = analysis, cost
        self._known: dict[tuple[int, ...], Amounts] = {}

    def __call__(self, kept: Counts) -> Amounts:
        key = tuple(kept.get(atom, atom.size) for atom in self.atoms)
        if key not in self._known:
            own = dict(zip(self.atoms, key, strict=True))
            self._known[key] = self._cost(shapes_after(self._analysis, own))
        return self._known[key]


def _weights(analysis: Analysis, stored: Mapping[str, int]) -> list[tuple[list[str], Callable[[ShapeOf], Amounts]]]:
    def of(value: ir.Value, bits: int) -> Callable[[ShapeOf], Amounts]:
        name, counts = value.name or "", is_parameter(value)

        def amounts(shape_of: ShapeOf) -> Amounts:
            size = prod(shape_of(name) or ())
            return size if counts else 0, 0, size * (bits // 8) if bits % 8 == 0 else (size * bits + 7) // 8

        return amounts

    weights = [v for v in analysis.model.graph.initializers.values() if v.const_value is not None and is_weight(v)]
    bits = [(v, stored.get(v.name or "", v.const_value.dtype.bitwidth)) for v in weights if v.const_value]
    return [([v.name or ""], of(v, each)) for v, each in bits]


def _operators(analysis: Analysis) -> list[tuple[list[str], Callable[[ShapeOf], Amounts]]]:
    def of(node: ir.Node) -> Callable[[ShapeOf], Amounts]:
        return lambda shape_of: (0, node_macs(node, shape_of), 0)

    return [
        ([value.name or "" for value in (*node.inputs, *node.outputs) if value is not None], of(node))
        for _, node in analysis.operators
        if find_cost(key_of(node)) is not None
    ]
