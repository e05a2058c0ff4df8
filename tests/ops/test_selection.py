"""Operators that take parts of axes or put them together, against the rule oracle."""

from __future__ import annotations

import numpy as np

from tests.rule_oracle import Case, SampleDraw, case, ints, oracle, sample

_ALL = "x[0] x[1] y[0] y[1]"


@sample("Concat", prunable="a[0] a[1] a[2] b[1] c[1] y[0] y[1] y[2]", fed="a b c")
def concatenated(d: SampleDraw) -> Case:
    n, c1, c2, c3, h = d.sizes(5)
    return case(a=d.normal(n, c1, h), b=d.normal(n, c2, h), c=d.normal(n, c3, h), axis=1)


@sample("Concat", prunable="a[0] a[1] b[1] y[0] y[1]", fed="a b", since=11)
def concatenated_from_the_back(d: SampleDraw) -> Case:
    n, c1, c2 = d.sizes(3)
    return case(a=d.normal(n, c1), b=d.normal(n, c2), axis=-1)


@sample("Concat", prunable="a[0] a[1] b[1] y[0] y[1]", fed="a")
def constant_put_beside(d: SampleDraw) -> Case:
    n, c1, c2 = d.sizes(3)
    return case(a=d.normal(n, c1), b=d.normal(n, c2), axis=1)


@sample("Split", prunable=f"{_ALL} x[2] z[1]", outputs="y z", until=12)
def split_by_attribute(d: SampleDraw) -> Case:
    n, a, b, h = d.sizes(4)
    return case(x=d.normal(n, a + b, h), axis=1, split=[a, b])


@sample("Split", prunable=f"{_ALL} x[2] z[1]", outputs="y z", since=13)
def split_by_input(d: SampleDraw) -> Case:
    n, a, b, h = d.sizes(4)
    return case(x=d.normal(n, a + b, h), sizes=ints(a, b), axis=-2)


@sample("Split", prunable=f"{_ALL} z[1] u[1]", outputs="y z u", until=17)
def split_equally(d: SampleDraw) -> Case:
    n, a = d.sizes(2)
    return case(x=d.normal(n, 3 * a), axis=1)


@sample("Split", prunable=f"{_ALL} z[1] u[1]", outputs="y z u", since=18)
def split_into_a_number_of_parts(d: SampleDraw) -> Case:
    n, a = d.sizes(2)
    return case(x=d.normal(n, 3 * a), axis=1, num_outputs=3)


@sample("Split", prunable="x[0] x[1] y[0] y[1] z[1]", outputs="y z", since=18)
def split_with_a_smaller_last_part(d: SampleDraw) -> Case:
    n, a = d.sizes(2)
    return case(x=d.normal(2 * n - 1, a), num_outputs=2)


@sample("Slice", prunable=f"{_ALL} x[2]", until=9)
def sliced_by_attributes(d: SampleDraw) -> Case:
    n, a, b, h = d.sizes(4)
    return case(x=d.normal(n, a + b + 4, h), axes=[1], starts=[a], ends=[a + b])


@sample("Slice", prunable=f"{_ALL} x[2]", until=9)
def sliced_by_attributes_without_axes(d: SampleDraw) -> Case:
    n, a, h = d.sizes(3)
    return case(x=d.normal(n, a + 4, h), starts=[0, 2], ends=[2**31 - 1, -2])


@sample("Slice", prunable=f"{_ALL} x[2]", since=10)
def sliced_by_inputs(d: SampleDraw) -> Case:
    n, a, b, h = d.sizes(4)
    return case(x=d.normal(n, h, a + b + 4), starts=ints(a), ends=ints(a + b), axes=ints(2))


@sample("Slice", prunable=_ALL, since=10)
def sliced_from_the_back(d: SampleDraw) -> Case:
    n, a, b = d.sizes(3)
    return case(x=d.normal(n, a + b), starts=ints(-a), ends=ints(2**63 - 1), axes=ints(-1), steps=ints(1))


@sample("Slice", prunable=_ALL, since=10)
def sliced_along_two_axes(d: SampleDraw) -> Case:
    n, a = d.sizes(2)
    return case(x=d.normal(n + 3, a + 5), starts=ints(-(a + 1), 1), ends=ints(-1, n + 1), axes=ints(1, 0))


@sample("Slice", prunable=_ALL, since=10)
def sliced_without_axes(d: SampleDraw) -> Case:
    n, a = d.sizes(2)
    return case(x=d.normal(n + 1, a + 1), starts=ints(0, 1), ends=ints(n, a + 1), axes=None, steps=ints(1, 1))


@sample("Slice", prunable="x[0] x[1] y[0]", since=10)
def sliced_to_nothing(d: SampleDraw) -> Case:
    n, a = d.sizes(2)
    return case(x=d.normal(n, a + 2), starts=ints(2), ends=ints(1), axes=ints(1))


@sample("Slice", prunable=_ALL, since=10)
def even_entries(d: SampleDraw) -> Case:
    n, a = d.sizes(2)
    return case(x=d.normal(n, 2 * a), starts=ints(0), ends=ints(2**63 - 1), axes=ints(1), steps=ints(2))


@sample("Slice", prunable=_ALL, since=10)
def odd_entries(d: SampleDraw) -> Case:
    n, a = d.sizes(2)
    return case(x=d.normal(n, 2 * a), starts=ints(1), ends=ints(2 * a), axes=ints(1), steps=ints(2))


@sample("Slice", prunable=_ALL, since=10)
def odd_entries_counted_from_the_back(d: SampleDraw) -> Case:
    n, a = d.sizes(2)
    return case(x=d.normal(n, 2 * a), starts=ints(1 - 2 * a), ends=ints(2 * a), axes=ints(-1), steps=ints(2))


@sample("Slice", prunable=_ALL, since=10)
def even_entries_with_an_early_end(d: SampleDraw) -> Case:
    n, a = d.sizes(2)
    return case(x=d.normal(n, 3 * a), starts=ints(0), ends=ints(-1), axes=ints(1), steps=ints(3))


@sample("Slice", prunable="x[0] y[0]", since=10)
def strided_part(d: SampleDraw) -> Case:
    n, a = d.sizes(2)
    return case(x=d.normal(n, 2 * a + 5), starts=ints(3), ends=ints(2 * a), axes=ints(1), steps=ints(2))


@sample("Slice", prunable=_ALL, since=10)
def backwards(d: SampleDraw) -> Case:
    n, a = d.sizes(2)
    return case(x=d.normal(n, a), starts=ints(-1), ends=ints(-(2**63)), axes=ints(1), steps=ints(-1))


@sample("Slice", prunable=_ALL, since=10)
def backwards_from_the_last(d: SampleDraw) -> Case:
    n, a = d.sizes(2)
    return case(x=d.normal(n, a), starts=ints(a - 1), ends=ints(-a - 1), axes=ints(1), steps=ints(-1))


@sample("Slice", prunable="x[0] y[0]", since=10)
def part_backwards(d: SampleDraw) -> Case:
    n, a = d.sizes(2)
    return case(x=d.normal(n, a + 2), starts=ints(-1), ends=ints(1), axes=ints(1), steps=ints(-1))


@sample("Slice", prunable="x[0] y[0]", since=10, fed="x ends")
def bounds_known_only_when_run(d: SampleDraw) -> Case:
    n, a = d.sizes(2)
    return case(x=d.normal(n, a), starts=ints(1), ends=ints(2), axes=ints(1))


@sample("Pad", prunable=f"{_ALL} x[2]", until=10)
def padded_by_attribute(d: SampleDraw) -> Case:
    n, c, h = d.sizes(3)
    return case(x=d.normal(n, c, h), pads=[0, 3, 0, 0, 5, 0], value=0.5)


@sample("Pad", prunable=f"{_ALL} x[2]", since=11)
def padded_by_input(d: SampleDraw) -> Case:
    n, c, h = d.sizes(3)
    return case(x=d.normal(n, c, h), pads=ints(0, 3, 0, 0, 0, 2), value=np.array(0.5, np.float32))


@sample("Pad", prunable=f"{_ALL} x[2]", since=18)
def padded_along_some_axes(d: SampleDraw) -> Case:
    n, c, h = d.sizes(3)
    return case(x=d.normal(n, c, h), pads=ints(2, 1, 3, 0), value=None, axes=ints(-2, 0))


@sample("Pad", prunable="x[0] x[1] y[1]", since=11)
def padded_with_reflections(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, c, 5), pads=ints(0, 0, 2, 0, 0, 1), mode="reflect")


@sample("Pad", prunable="x[0] y[0]", since=11)
def cropped(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, c + 2), pads=ints(0, -1, 0, 1))


@sample("Gather", prunable="x[1] indices[0] indices[1] y[0] y[1] y[2]", fed="indices")
def embedding(d: SampleDraw) -> Case:
    v, h, n, s = d.sizes(4)
    return case(x=d.normal(v, h), indices=d.integers(v, n, s))


@sample("Gather", prunable="x[0] x[1] x[2] y[0] y[1]")
def one_entry(d: SampleDraw) -> Case:
    n, c, h = d.sizes(3)
    return case(x=d.normal(n, c + 2, h), index=np.array(-2), axis=1)


@sample("Gather", prunable="x[0] x[1] y[0] y[1]")
def listed_entries(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, c + 4), index=ints(*range(2, c + 2), 0, -1), axis=-1)


@sample("Gather", prunable="x[0] x[1] y[0] y[1]")
def listed_twice(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, c), index=ints(*range(c), *range(c)), axis=1)


@sample("Gather", prunable="x[0] x[1] y[0] y[1] y[2]")
def listed_in_a_matrix(d: SampleDraw) -> Case:
    n, a, b = d.sizes(3)
    return case(x=d.normal(n, a * b + 3), index=np.arange(a * b).reshape(a, b) + 3, axis=1)


@sample("Gather", prunable="x[0] x[1] y[0] y[1]")
def reversed_entries(d: SampleDraw) -> Case:
    n, a = d.sizes(2)
    return case(x=d.normal(n, a), index=np.arange(a)[::-1].copy(), axis=1)


@sample("Gather", prunable="x[0] x[1] y[0] y[1]")
def shuffled_entries(d: SampleDraw) -> Case:
    (n,) = d.sizes(1)
    return case(x=d.normal(n, 200), index=d.rng.permutation(200), axis=1)


@sample("Gather", prunable="x[0] x[1] y[0] y[1] y[2]")
def columns_as_rows(d: SampleDraw) -> Case:
    n, a, b = d.sizes(3)
    return case(x=d.normal(n, a * b), index=np.arange(a * b).reshape(a, b).T.copy(), axis=1)


@sample("Gather", prunable="x[0] y[0]")
def scattered_entries(d: SampleDraw) -> Case:
    (n,) = d.sizes(1)
    return case(x=d.normal(n, 200), index=np.arange(0, 200, 2), axis=1)


@sample("GatherElements", prunable="x[0] x[2] places[0] y[0]", fed="x places")
def elements(d: SampleDraw) -> Case:
    n, c, h = d.sizes(3)
    return case(x=d.normal(n, c, h), places=d.integers(c, n, 4, h), axis=1)


@sample("GatherElements", prunable="x[0] y[0]", fed="x places")
def elements_of_a_part(d: SampleDraw) -> Case:
    n, c, h = d.sizes(3)
    return case(x=d.normal(n, c, h + 1), places=d.integers(c, n, 4, h), axis=-2)


@sample("Scatter", prunable="x[0] x[2] places[0] updates[0] y[0]", fed="x places updates", until=10)
@sample("ScatterElements", prunable="x[0] x[2] places[0] updates[0] y[0]", fed="x places updates")
def elements_replaced(d: SampleDraw) -> Case:
    n, h = d.sizes(2)
    places = np.broadcast_to(d.rng.permutation(7)[:4].reshape(1, 4, 1), (n, 4, h)).copy()
    return case(x=d.normal(n, 7, h), places=places, updates=d.normal(n, 4, h), axis=1)


@sample("ScatterElements", prunable="x[0] y[0]", fed="x places updates")
def elements_replaced_in_a_part(d: SampleDraw) -> Case:
    n, h = d.sizes(2)
    places = np.broadcast_to(d.rng.permutation(7)[:4].reshape(1, 4, 1), (n, 4, h)).copy()
    return case(x=d.normal(n, 7, h + 1), places=places, updates=d.normal(n, 4, h), axis=1)


@sample("ScatterND", prunable="x[2] updates[2] y[2]", fed="x updates")
def slices_replaced(d: SampleDraw) -> Case:
    s, h = d.sizes(2)
    indices = np.array([[[0, 1], [1, 0], [1, 2]], [[0, 0], [0, 2], [1, 1]]])
    return case(x=d.normal(2, s + 1, h), indices=indices, updates=d.normal(2, 3, h))


@sample("ScatterND", prunable="x[1] x[2] updates[1] y[1] y[2]", fed="x indices updates", since=16)
def rows_added(d: SampleDraw) -> Case:
    n, c, h = d.sizes(3)
    updates = d.normal(n, c, h)
    return case(x=d.normal(n, c, h), indices=d.rng.permutation(n).reshape(n, 1), updates=updates, reduction="add")


@sample("ScatterND", prunable="x[1] indices[0] updates[0] updates[1] y[1]", fed="")
def rows_put_into_zeros(d: SampleDraw) -> Case:
    m, h = d.sizes(2)
    places = d.rng.permutation(m + 2)[:m].reshape(m, 1)
    return case(x=np.zeros((m + 2, h), np.float32), indices=places, updates=d.normal(m, h))


@sample("GatherND", prunable="x[1] indices[0] y[0] y[1]", fed="x")
def rows_taken(d: SampleDraw) -> Case:
    m, h = d.sizes(2)
    return case(x=d.normal(m + 2, h), indices=d.rng.permutation(m + 2)[:m].reshape(m, 1))


@sample("GatherND", prunable="x[2] y[2]", fed="x indices")
def slices_taken(d: SampleDraw) -> Case:
    h, m = d.sizes(2)
    return case(x=d.normal(2, 3, h), indices=d.integers(2, 4, m, 2))


@sample("GatherND", prunable="x[2] x[3] y[2] y[3]", fed="x indices", since=12)
def slices_taken_per_batch(d: SampleDraw) -> Case:
    n, c, h, m = d.sizes(4)
    return case(x=d.normal(n, 5, c, h), indices=d.integers(5, n, m, 1), batch_dims=1)


@sample("OneHot", prunable="indices[0] indices[1] y[0] y[1]")
def classes_last(d: SampleDraw) -> Case:
    n, s = d.sizes(2)
    return case(indices=d.integers(5, n, s), depth=np.array(5), values=np.array([0, 1], np.float32))


@sample("OneHot", prunable="indices[0] indices[1] y[0] y[2]")
def classes_between(d: SampleDraw) -> Case:
    n, s = d.sizes(2)
    return case(indices=d.integers(5, n, s), depth=np.array(5), values=np.array([0, 1], np.float32), axis=-2)


@sample("ReverseSequence", prunable="x[2] y[2]", fed="x lengths")
def sequences_reversed(d: SampleDraw) -> Case:
    s, n, h = d.sizes(3)
    return case(x=d.normal(s, n, h), lengths=d.integers(s + 1, n, low=1))


test_rule = oracle(__name__)
