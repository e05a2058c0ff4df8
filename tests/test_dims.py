"""The laws of the dimension algebra, against an explicit model: which units does each entry of an axis belong to?"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.dims import (
    Atom,
    Concat,
    Dim,
    Mask,
    MisalignedError,
    Permuted,
    Product,
    atoms,
    concat,
    cut,
    describe,
    factor,
    freeze,
    keep_mask,
    kept_size,
    permuted,
    product,
    project,
    replaced,
    resolve,
    unify,
    units_of,
)

laws = settings(max_examples=150, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 2**32 - 1)
Unit = tuple[Atom, int]


# -- the model: every entry of an axis as the units that it needs


def entries(dim: Dim) -> list[Counter[Unit]]:
    """Per entry, how often each unit occurs in it."""
    dim = resolve(dim)
    if isinstance(dim, Atom):
        return [Counter([(dim, unit)]) for unit in range(dim.size)]
    if isinstance(dim, Concat):
        return [entry for part in dim.parts for entry in entries(part)]
    if isinstance(dim, Permuted):
        inner = entries(dim.inner)
        return [inner[i] for i in dim.order]
    assert isinstance(dim, Product)
    rows: list[Counter[Unit]] = [Counter()]
    for part in dim.factors:
        rows = [outer + inner for outer in rows for inner in entries(part)]
    return rows


def removable(axes: list[Dim]) -> Counter[frozenset[tuple[int, int]]]:
    """Each unit that can be removed as the (axis, entry) pairs that go with it: equal up to the names of atoms."""
    places: dict[Unit, set[tuple[int, int]]] = {}
    for index, dim in enumerate(axes):
        for position, entry in enumerate(entries(dim)):
            for unit in entry:
                places.setdefault(unit, set()).add((index, position))
    return Counter(frozenset(where) for (atom, _), where in places.items() if atom.reason is None)


def random_masks(dims: list[Dim], seed: int) -> dict[Atom, Mask]:
    """Keep-masks of all atoms inside that can lose a unit: not frozen, and of more than one."""
    rng = np.random.default_rng(seed)
    inside = dict.fromkeys(atom for dim in dims for atom in atoms(dim) if atom.reason is None and atom.size > 1)
    return {atom: rng.random(atom.size) < 0.6 for atom in inside}


def well_formed(dim: Dim, above: tuple[Dim, ...] = ()) -> None:
    """Sizes add and multiply, nothing of size 0 or 1 is nested, and no dimension contains itself."""
    dim = resolve(dim)
    assert dim not in above
    if isinstance(dim, Atom):
        return
    if isinstance(dim, Permuted):
        assert not isinstance(resolve(dim.inner), Permuted)
        assert sorted(dim.order) == list(range(dim.size)) != list(dim.order)
        well_formed(dim.inner, (*above, dim))
        return
    parts = dim.parts if isinstance(dim, Concat) else dim.factors  # type: ignore[attr-defined]
    sizes = [part.size for part in parts]
    assert len(sizes) > 1
    assert min(sizes) > (0 if isinstance(dim, Concat) else 1)
    assert dim.size == (sum(sizes) if isinstance(dim, Concat) else prod(sizes))
    for part in parts:
        well_formed(part, (*above, dim))


def random_dim(rng: random.Random, pool: list[Atom], depth: int = 2) -> Dim:
    """An expression over new atoms and those of the pool; some are frozen, some are a single unit."""
    kind = rng.choice(["atom", "concat", "product", "permuted"]) if depth else "atom"
    if kind == "permuted":
        inner = random_dim(rng, pool, depth - 1)
        return permuted(inner, np.array(random_order(rng, inner.size)))
    if kind != "atom":
        parts = [random_dim(rng, pool, depth - 1) for _ in range(rng.randint(2, 3))]
        return concat(*parts) if kind == "concat" else product(*parts[:2])
    if rng.random() < 0.7 or not pool:
        pool.append(Atom(rng.randint(1, 6), "frozen from the start" if rng.random() < 0.1 else None))
        return pool[-1]
    return rng.choice(pool)


def random_order(rng: random.Random, size: int) -> list[int]:
    """Any order, backwards, or rows as columns."""
    rows = rng.choice([n for n in range(1, size + 1) if size % n == 0])
    orders = [rng.sample(range(size), size), range(size)[::-1], np.arange(size).reshape(rows, -1).T.ravel().tolist()]
    return list(rng.choice(orders))


# -- refinements against the model


@laws
@given(seeds, seeds)
def test_keep_mask_is_the_conjunction_of_the_units_of_each_entry(seed: int, mask_seed: int) -> None:
    dim = random_dim(random.Random(seed), [], depth=3)
    keep = random_masks([dim], mask_seed)
    expected = [all(atom not in keep or keep[atom][unit] for atom, unit in entry) for entry in entries(dim)]
    assert keep_mask(dim, keep).tolist() == expected
    assert keep_mask(dim, keep).shape == (dim.size,)


@laws
@given(seeds, seeds)
def test_kept_size_counts_the_keep_mask(seed: int, mask_seed: int) -> None:
    dim = random_dim(random.Random(seed), [], depth=3)
    keep = random_masks([dim], mask_seed)
    assert kept_size(dim, {atom: int(mask.sum()) for atom, mask in keep.items()}) == keep_mask(dim, keep).sum()


@laws
@given(seeds, seeds)
def test_project_is_the_adjoint_of_keep_mask(seed: int, weight_seed: int) -> None:
    """A weight per entry goes to every unit that the entry needs, once per occurrence."""
    dim = random_dim(random.Random(seed), [], depth=3)
    weights = np.random.default_rng(weight_seed).standard_normal(dim.size)
    expected: Counter[Unit] = Counter()
    for weight, entry in zip(weights, entries(dim), strict=True):
        for unit, count in entry.items():
            expected[unit] += count * weight
    found = project(dim, weights)
    assert found.keys() == set(atoms(dim))
    for (atom, index), total in expected.items():
        assert np.isclose(found[atom][index], total)


@laws
@given(seeds, seeds)
def test_what_is_left_is_the_expression_over_what_is_left_of_the_atoms(seed: int, mask_seed: int) -> None:
    dim = random_dim(random.Random(seed), [], depth=3)
    keep = random_masks([dim], mask_seed)
    smaller = {atom: Atom(int(keep[atom].sum()) if atom in keep else atom.size) for atom in atoms(dim)}
    left = [entry for entry, kept in zip(entries(dim), keep_mask(dim, keep), strict=True) if kept]
    place = {
        (atom, unit): (smaller[atom], int(keep[atom][:unit].sum()) if atom in keep else unit)
        for atom in smaller
        for unit in range(atom.size)
    }
    found = replaced(dim, smaller.__getitem__, keep)
    some = {atom: np.arange(atom.size) % 2 == 0 for atom in smaller.values() if atom.size > 1}
    expected = [
        all(some[atom][unit] for atom, unit in (place[unit] for unit in entry) if atom in some) for entry in left
    ]
    assert keep_mask(found, some).tolist() == expected


def test_project_gives_each_unit_the_weights_that_go_with_it() -> None:
    heads, width = Atom(2), Atom(3)
    found = project(concat(product(heads, width), width), np.arange(9.0))
    assert found[heads].tolist() == [0 + 1 + 2, 3 + 4 + 5]
    assert found[width].tolist() == [0 + 3 + 6, 1 + 4 + 7, 2 + 5 + 8]


@laws
@given(seeds)
def test_units_of_says_which_unit_an_entry_needs(seed: int) -> None:
    dim = random_dim(random.Random(seed), [], depth=3)
    for atom in atoms(dim):
        for unit, entry in zip(units_of(dim, atom), entries(dim), strict=True):
            needed = {index for (other, index) in entry if other is atom}
            assert unit == (max(needed) if needed else -1)


@dataclass
class History:
    """Dimensions under random refinements, and what each of those promised."""

    rng: random.Random
    dims: list[Dim] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    promises: list[Callable[[dict[Atom, Mask]], bool]] = field(default_factory=list)

    def add(self, *dims: Dim) -> None:
        self.dims.extend(dims)
        self.sizes.extend(dim.size for dim in dims)

    def step(self) -> None:
        self.rng.choice([self.cut, self.factor, self.unify, self.unify, self.freeze])()

    def cut(self) -> None:
        dim = self.rng.choice(self.dims)
        k = self.rng.randint(0, dim.size)
        head, tail = cut(dim, k)
        assert (head.size, tail.size) == (k, dim.size - k)
        self.add(head, tail)
        self.promises.append(
            lambda keep: (
                np.array_equal(keep_mask(dim, keep)[:k], keep_mask(head, keep))
                and np.array_equal(keep_mask(dim, keep)[k:], keep_mask(tail, keep))
            )
        )

    def factor(self) -> None:
        dim = self.rng.choice(self.dims)
        outer_size = self.rng.choice([n for n in range(1, dim.size + 1) if dim.size % n == 0] or [1])
        try:
            outer, inner = factor(dim, outer_size)
        except MisalignedError:
            return
        assert (outer.size, inner.size) == (outer_size, dim.size // outer_size)
        self.add(outer, inner)
        self.promises.append(
            lambda keep: (
                np.array_equal(
                    keep_mask(dim, keep).reshape(outer_size, -1),
                    np.logical_and.outer(keep_mask(outer, keep), keep_mask(inner, keep)),
                )
                and np.array_equal(keep_mask(dim, keep), keep_mask(product(outer, inner), keep))
            )
        )

    def unify(self) -> None:
        a = self.rng.choice(self.dims)
        b = self.rng.choice([dim for dim in self.dims if dim.size == a.size])
        unify(a, b)
        self.promises.append(lambda keep: np.array_equal(keep_mask(a, keep), keep_mask(b, keep)))

    def freeze(self) -> None:
        if self.rng.random() < 0.3:
            dim = self.rng.choice(self.dims)
            freeze(dim, "frozen on the way")
            self.promises.append(lambda keep: bool(keep_mask(dim, keep).all()))


@laws
@given(seeds, st.integers(1, 12), seeds)
def test_what_a_refinement_promises_holds_whatever_happens_later(seed: int, steps: int, mask_seed: int) -> None:
    """Cut, factor, unify and freeze in any order: afterwards each of them holds for every choice of units to keep."""
    rng = random.Random(seed)
    history, pool = History(rng), list[Atom]()
    history.add(*(random_dim(rng, pool) for _ in range(3)))
    history.add(*(Atom(dim.size) for dim in list(history.dims)))
    for _ in range(steps):
        history.step()
    keep = random_masks(history.dims, mask_seed)
    assert all(promise(keep) for promise in history.promises)
    assert [resolve(dim).size for dim in history.dims] == history.sizes
    for dim in history.dims:
        well_formed(dim)
        assert describe(dim)


@laws
@given(seeds, seeds)
def test_unify_twice_changes_nothing(seed: int, other: int) -> None:
    a, b = (random_dim(random.Random(each), []) for each in (seed, other))
    if a.size != b.size:
        a, b = product(a, Atom(b.size)), product(Atom(a.size), b)
    unify(a, b)
    before = removable([a, b])
    unify(a, b)
    unify(b, a)
    assert removable([a, b]) == before


# -- equations that line up: any order gives the same units


@dataclass(frozen=True)
class Tree:
    """The truth about an axis: a named atom, or parts under "concat" or "product"."""

    kind: str
    size: int
    name: int = 0
    parts: tuple[Tree, ...] = ()


def random_tree(rng: random.Random, names: dict[int, int], depth: int = 3) -> Tree:
    """Atoms of two units and more: what is a single unit takes no part in anything."""
    kind = rng.choice(["atom", "concat", "product"]) if depth else "atom"
    if kind == "atom":
        name = rng.choice([*names, len(names)])
        return Tree("atom", names.setdefault(name, rng.randint(2, 4)), name)
    parts = tuple(random_tree(rng, names, depth - 1) for _ in range(2))
    sizes = [part.size for part in parts]
    if kind == "product" and prod(sizes) > 60:
        return parts[0]
    return Tree(kind, sum(sizes) if kind == "concat" else prod(sizes), parts=parts)


Equation = Callable[[], None]


class Equations:
    """Facts about axes, none of which shows the whole tree; to be stated in any order."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.named: dict[int, Atom] = {}
        self.facts: list[Equation] = []

    def state(self, axis: Dim, tree: Tree) -> None:
        """Break `axis` = `tree` into facts over atoms of their own."""
        if tree.kind == "atom":
            name = self.named.setdefault(tree.name, Atom(tree.size))
            self.facts.append(lambda: unify(axis, name))
        elif tree.kind == "product" and tree.parts[0].kind == "concat" and self.rng.random() < 0.5:
            self.state(axis, _distributed(tree))
        else:
            self._state_parts(axis, tree)

    def _state_parts(self, axis: Dim, tree: Tree) -> None:
        first, second = (Atom(part.size) for part in tree.parts)
        join, split = (concat, cut) if tree.kind == "concat" else (product, factor)
        if self.rng.random() < 0.5:
            self.facts.append(lambda: unify(axis, join(first, second)))
        else:
            self.facts.append(lambda: _unify_both(split(axis, first.size), (first, second)))
        self.state(first, tree.parts[0])
        self.state(second, tree.parts[1])


def _unify_both(ones: tuple[Dim, Dim], others: tuple[Dim, Dim]) -> None:
    for one, other in zip(ones, others, strict=True):
        unify(one, other)


def _distributed(tree: Tree) -> Tree:
    """(a + b) * c as a * c + b * c."""
    (a, b), c = tree.parts[0].parts, tree.parts[1]
    rows = tuple(Tree("product", part.size * c.size, parts=(part, c)) for part in (a, b))
    return Tree("concat", tree.size, parts=rows)


def _truth(tree: Tree, named: dict[int, Atom]) -> Dim:
    if tree.kind == "atom":
        return named.setdefault(tree.name, Atom(tree.size))
    parts = [_truth(part, named) for part in tree.parts]
    return concat(*parts) if tree.kind == "concat" else product(*parts)


def _instance(seed: int) -> tuple[list[Dim], list[Tree], list[Equation]]:
    """Axes, two views of the truth about each of them, and the axes as a reshape puts them together."""
    rng = random.Random(seed)
    names: dict[int, int] = {}
    trees = [random_tree(rng, names) for _ in range(rng.randint(1, 3))]
    axes: list[Dim] = [Atom(tree.size) for tree in trees for _ in range(2)]
    equations = Equations(rng)
    for axis, tree in zip(axes, [tree for tree in trees for _ in range(2)], strict=True):
        equations.state(axis, tree)
    for one, other in zip(axes[::2], axes[1::2], strict=True):
        equations.facts.append(lambda one=one, other=other: unify(one, other))  # type: ignore[misc]
    merged = Atom(prod(axis.size for axis in axes[::2]))
    if merged.size <= 200:
        for chosen in (axes[::2], axes[1::2]):
            equations.facts.append(lambda chosen=chosen: unify(merged, product(*chosen)))  # type: ignore[misc]
    return axes, [tree for tree in trees for _ in range(2)], equations.facts


def _solved(seed: int, order: int) -> list[Dim]:
    axes, _, facts = _instance(seed)
    random.Random(order).shuffle(facts)
    for fact in facts:
        fact()
    return axes


@laws
@given(seeds, seeds)
def test_equations_that_line_up_give_the_truth_in_any_order(seed: int, order: int) -> None:
    axes, trees, _ = _instance(seed)
    axes = _solved(seed, order)
    named: dict[int, Atom] = {}
    assert removable(axes) == removable([_truth(tree, named) for tree in trees])
    assert all(atom.reason is None for axis in axes for atom in atoms(axis))


@laws
@given(seeds, seeds)
def test_a_freeze_reaches_the_same_units_in_any_order(seed: int, order: int) -> None:
    def solved(shuffle: random.Random) -> list[Dim]:
        axes, _, facts = _instance(seed)
        facts.append(lambda: freeze(axes[0], "interface"))
        shuffle.shuffle(facts)
        for fact in facts:
            fact()
        return axes

    frozen_first, frozen_somewhere = solved(random.Random(order)), solved(random.Random(order + 1))
    assert removable(frozen_first) == removable(frozen_somewhere)
    assert all(atom.reason == "interface" for atom in atoms(frozen_first[0]))


@laws
@given(seeds)
def test_unify_is_symmetric_on_dimensions_that_line_up(seed: int) -> None:
    def unified(swap: bool) -> list[Dim]:
        rng = random.Random(seed)
        tree = random_tree(rng, {})
        pair = []
        for _ in range(2):
            equations = Equations(rng)
            pair.append(Atom(tree.size))
            equations.state(pair[-1], tree)
            for fact in equations.facts:
                fact()
        unify(*(pair[::-1] if swap else pair))
        return list(pair)

    assert removable(unified(swap=False)) == removable(unified(swap=True))


# -- what does not line up


def _reasons(*dims: Dim) -> set[object]:
    return {atom.reason for dim in dims for atom in atoms(dim)}


@given(st.permutations([2, 3, 5, 7, 11]))
def test_factors_without_a_common_boundary_are_frozen_on_both_sides(sizes: list[int]) -> None:
    a, b, c, d, e = sizes
    left, right = product(Atom(a * e), Atom(b)), product(Atom(b), Atom(a * e))
    unify(left, right, "no common boundary")
    assert _reasons(left, right) == {"no common boundary"}
    outside = Atom(c * d)
    left, right = product(outside, Atom(a), Atom(b)), product(Atom(c), Atom(d), Atom(b), Atom(a))
    unify(left, right, "no common boundary")
    assert _reasons(outside) == {None}
    assert describe(outside) == f"{c}*{d}"
    assert [atom.reason for atom in atoms(left)] == [None, None, "no common boundary", "no common boundary"]
    assert [atom.reason for atom in atoms(right)] == [None, None, "no common boundary", "no common boundary"]


def test_factors_are_aligned_from_the_inside_too() -> None:
    """5*3*14 against 3*10*7: 14 is 2*7 and 10 is 5*2, and only 5*3 against 3*5 does not line up."""
    left, right = [Atom(5), Atom(3), Atom(14)], [Atom(3), Atom(10), Atom(7)]
    unify(product(*left), product(*right))
    assert _reasons(*left[:2], right[0]) == {"its parts do not line up"}
    assert [describe(left[2]), describe(right[1])] == ["2*7", "5*2"]
    assert _reasons(left[2], right[2]) == {None}
    assert list(atoms(left[2])) == [list(atoms(right[1]))[1], resolve(right[2])]


def test_a_boundary_inside_a_factor_splits_it() -> None:
    first, second = Atom(6), Atom(5)
    outer, inner = factor(product(first, second), 2)
    assert describe(product(outer, inner)) == "2*3*5"
    assert list(atoms(inner)) == [list(atoms(first))[1], second]


def test_a_boundary_inside_a_row_cuts_the_rows() -> None:
    """12 = 3 rows of 4 cut at 6 = 1 row and a half: rows keep their number, and their halves are alike."""
    rows, columns = Atom(3), Atom(4)
    left, right = Atom(6), Atom(6)
    unify(product(rows, columns), concat(left, right))
    assert describe(columns) == "(2+2)"
    assert _reasons(columns) == {None}
    assert _reasons(rows) == {"a single unit"}
    first, second = atoms(columns)
    assert list(atoms(left)) == [first, second, first]
    assert list(atoms(right)) == [second, first, second]


def _rows(dim: Dim, count: int) -> Iterator[Dim]:
    size = dim.size // count
    for _ in range(count):
        row, dim = cut(dim, size)
        yield row


def test_rows_that_end_inside_parts_are_cut_apart_while_there_are_few() -> None:
    few = concat(Atom(5), Atom(7))
    outer, inner = factor(few, 4)
    assert _reasons(outer) == {"its rows end inside parts of a concatenation"}
    assert _reasons(inner) == {None}
    assert [list(atoms(row)) for row in _rows(few, 4)] == [list(atoms(inner))] * 4
    many = concat(Atom(5), Atom(55))
    with pytest.raises(MisalignedError, match="no outer part of 20"):
        factor(many, 20)


def test_factor_needs_a_boundary_there() -> None:
    with pytest.raises(MisalignedError, match="no outer part of 3"):
        factor(Atom(4), 3)
    with pytest.raises(MisalignedError, match="no outer part of 3"):
        factor(product(Atom(2), Atom(3)), 3)
    with pytest.raises(MisalignedError):
        factor(Atom(4), 0)
    whole = Atom(6)
    with pytest.raises(MisalignedError, match=r"6\*10 has no outer part of 4"):
        factor(product(whole, Atom(10)), 4)
    assert resolve(whole) is whole, "a refusal must not split anything"


def test_sizes_must_be_equal() -> None:
    with pytest.raises(ValueError, match="2 and 3 entries"):
        unify(Atom(2), Atom(3))
    for k in (-1, 5):
        with pytest.raises(ValueError, match="cannot cut 4 entries"):
            cut(Atom(4), k)


# -- freezing


def test_the_first_reason_is_kept() -> None:
    a, b = Atom(2), Atom(3)
    freeze(a, "first")
    freeze(concat(a, b), "second")
    freeze(b, "third")
    assert (a.reason, b.reason) == ("first", "second")


def test_a_reason_follows_the_bonds_made_later() -> None:
    frozen, free = Atom(12), Atom(12)
    freeze(frozen, "interface")
    unify(free, frozen)
    outer, inner = factor(free, 3)
    head, tail = cut(inner, 1)
    other = Atom(3)
    unify(other, tail)
    assert _reasons(free, outer, head, other) == {"interface"}


@pytest.mark.parametrize("swap", [False, True])
def test_a_reason_reaches_both_sides(swap: bool) -> None:
    frozen, free = product(Atom(2), Atom(3, "interface")), product(Atom(2), Atom(3))
    unify(*((frozen, free) if swap else (free, frozen)))
    assert [atom.reason for atom in atoms(free)] == [None, "interface"]
    assert [atom.reason for atom in atoms(frozen)] == [None, "interface"]


def test_a_factor_of_one_unit_is_frozen_when_it_is_dropped() -> None:
    single, rest = Atom(1), Atom(4)
    assert resolve(product(single, rest)) is rest
    assert single.reason == "a single unit"


# -- forms


def test_normal_form() -> None:
    a, b, c = Atom(2), Atom(3), Atom(4)
    assert [part.size for part in concat(concat(a, Atom(0)), concat(b, c)).parts] == [2, 3, 4]  # type: ignore[attr-defined]
    assert [part.size for part in product(product(a, Atom(1)), product(b, c)).factors] == [2, 3, 4]  # type: ignore[attr-defined]
    assert (concat(a), product(a), concat(Atom(0), a), product(Atom(1), a)) == (a, a, a, a)
    assert (concat().size, product().size, product(a, Atom(0)).size) == (0, 1, 0)


def test_describe_names_what_has_a_name() -> None:
    heads, width = Atom(12), Atom(64)
    dim = product(Atom(3), heads, concat(width, Atom(2)))
    assert describe(dim) == "3*12*(64+2)"
    assert describe(dim, {heads: "heads", width: "width"}) == "3*heads:12*(width:64+2)"


def test_a_dimension_cannot_come_to_contain_itself() -> None:
    a, b = Atom(5), Atom(3)
    unify(concat(a, b), concat(b, a))  # only a common divisor of 5 and 3 solves this
    assert removable([a, b]) == Counter([frozenset((i, j) for i, n in enumerate((5, 3)) for j in range(n))])
    c = Atom(6)
    unify(product(c, Atom(1)), concat(c, Atom(0)))
    assert resolve(c) is c


# -- the examples of the design


def _paths(*dims: Dim) -> Iterator[list[int]]:
    """The mask of the last dimension for each unit removed from the first, as the entries that go."""
    for atom in dict.fromkeys(atoms(dims[0])):
        for unit in range(atom.size):
            mask = np.arange(atom.size) != unit
            yield np.flatnonzero(~keep_mask(dims[-1], {atom: mask})).tolist()


def test_fused_qkv_holds_heads_and_their_width() -> None:
    columns = Atom(3 * 4 * 5)
    three, heads, width = Atom(3, "split into q, k and v"), Atom(4), Atom(5)
    unify(columns, product(three, heads, width))
    assert next(_paths(heads, columns)) == [*range(5), *range(20, 25), *range(40, 45)]
    assert next(_paths(width, columns)) == list(range(0, 60, 5))


def test_padded_shortcut_shrinks_its_padding() -> None:
    channels, front, back = Atom(16), Atom(8), Atom(8)
    wide = Atom(32)
    unify(wide, concat(front, channels, back))
    assert next(_paths(channels, wide)) == [8]
    assert next(_paths(front, wide)) == [0]


def test_concat_meets_product_where_the_rows_end() -> None:
    heads, width = Atom(5), Atom(4)
    queries, keys = Atom(12), Atom(8)
    unify(concat(queries, keys), product(heads, width))
    assert describe(heads) == "(3+2)"
    assert describe(queries) == "3*4"
    assert list(atoms(queries))[1] is list(atoms(keys))[1] is resolve(width)
    assert _reasons(queries, keys) == {None}


def test_rotary_halves_are_one() -> None:
    """The width of a head is cut in halves, one is turned into the other, and both are added to the unturned."""
    width = Atom(8)
    first, second = cut(width, 4)
    unify(width, concat(second, first))
    half = resolve(first)
    assert resolve(second) is half
    assert next(_paths(half, width)) == [0, 4]


def test_grouped_queries_share_keys() -> None:
    kv_heads, shared, width = Atom(2), Atom(3), Atom(5)
    queries, keys = Atom(30), Atom(10)
    unify(keys, product(kv_heads, width))
    unify(queries, product(product(kv_heads, shared), width))
    assert next(_paths(kv_heads, keys)) == list(range(5))
    assert next(_paths(kv_heads, queries)) == list(range(15))


def test_channel_shuffle_keeps_groups_apart() -> None:
    """[g, c] transposed to [c, g]: an entry of the shuffled axis goes with one channel of one group."""
    channels, shuffled = Atom(6), Atom(6)
    groups, inner = factor(channels, 2)
    unify(shuffled, product(inner, groups))
    assert next(_paths(groups, shuffled)) == [0, 2, 4]
    assert next(_paths(inner, shuffled)) == [0, 1]
    outer, rest = factor(shuffled, 3)
    assert (resolve(outer), resolve(rest)) == (resolve(inner), resolve(groups))


def test_a_shuffle_by_positions_leaves_every_unit_on_its_own() -> None:
    """Unlike one by a transposition, which a whole row of units would leave together."""
    kept, made = Atom(4), Atom(4)
    weight = Atom(8)
    unify(weight, permuted(concat(kept, made), np.arange(8).reshape(2, 4).T.ravel()))
    assert removable([weight, kept, made]) == Counter(
        frozenset({(0, 2 * unit + side), (1 + side, unit)}) for unit in range(4) for side in range(2)
    )
    front, back = cut(weight, 4)
    assert _reasons(front, back) == {None}


def test_a_permuted_dimension_is_factored_where_rows_stay_rows_or_become_columns() -> None:
    for order in (np.arange(12).reshape(3, 4).T.ravel(), np.arange(12)[::-1]):
        outer, inner = factor(permuted(Atom(12), order), 4)
        assert (outer.size, inner.size) == (4, 3)
    with pytest.raises(MisalignedError):
        factor(permuted(Atom(6), np.array([1, 0, 2, 3, 4, 5])), 2)


def test_twice_backwards_is_forwards_and_once_ties_a_unit_to_its_opposite() -> None:
    units, backwards = Atom(6), np.arange(6)[::-1]
    assert permuted(permuted(units, backwards), backwards) is units
    unify(units, permuted(units, backwards))
    assert units.reason


def test_a_permutation_that_is_cut_into_single_units_is_frozen() -> None:
    units = Atom(60)
    head, tail = cut(permuted(units, np.random.default_rng(0).permutation(60)), 30)
    assert (head.size, tail.size) == (30, 30)
    assert units.reason


def test_gates_of_a_cell_share_their_units() -> None:
    hidden, gates = Atom(3), Atom(12)
    unify(gates, concat(*[hidden] * 4))
    assert list(_paths(hidden, gates)) == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]


def test_grouped_convolution_shares_its_groups() -> None:
    inputs, outputs, per_group = Atom(6), Atom(15), Atom(2)
    groups, _ = factor(outputs, 3)
    unify(inputs, product(groups, per_group))
    assert next(_paths(groups, outputs)) == list(range(5))
    assert next(_paths(groups, inputs)) == [0, 1]


def test_flatten_into_a_classifier() -> None:
    channels, pixels, columns = Atom(3), Atom(4, "spatial"), Atom(12)
    unify(columns, product(channels, pixels))
    assert list(_paths(channels, columns)) == [list(range(4)), list(range(4, 8)), list(range(8, 12))]
