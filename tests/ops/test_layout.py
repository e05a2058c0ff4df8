"""Operators that move axes around, against the rule oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from tests.rule_oracle import Array, Case, SampleDraw, case, ints, oracle, sample


@sample("Reshape", prunable="x[0] x[1] y[0] y[1] y[2]")
def split_in_two(d: SampleDraw) -> Case:
    n, a, b = d.sizes(3)
    return case(x=d.normal(n, a * b), shape=ints(n, a, b))


@sample("Reshape", prunable="x[0] x[1] x[2] y[0] y[1]")
def merged(d: SampleDraw) -> Case:
    n, a, b = d.sizes(3)
    return case(x=d.normal(n, a, b), shape=ints(n, a * b))


@sample("Reshape", prunable="x[0] x[1] x[2] x[3] y[0] y[1] y[2]")
def merged_with_copied_and_free_axes(d: SampleDraw) -> Case:
    n, a, b, c = d.sizes(4)
    return case(x=d.normal(n, a, b, c), shape=ints(0, -1, c))


@sample("Reshape", prunable="x[0] x[1] x[2] y[0] y[2] y[3]")
def heads(d: SampleDraw) -> Case:
    n, s, h, e = d.sizes(4)
    return case(x=d.normal(n, s, h * e), shape=ints(0, 0, h, -1))


@sample("Reshape", prunable="x[0] x[1] y[0]")
def regrouped(d: SampleDraw) -> Case:
    a, b, c = d.sizes(3)
    return case(x=d.normal(a * b, c), shape=ints(a, b * c))


@sample("Reshape", prunable="x[0] y[0]")
def copied_size_of_another_axis(d: SampleDraw) -> Case:
    a, b, c, e = d.sizes(4)
    return case(x=d.normal(a * b, b * c, e), shape=ints(a, 0, b * e))


@sample("Reshape", prunable="x[0] x[1] y[0] y[3]")
def ones_inserted(d: SampleDraw) -> Case:
    a, b = d.sizes(2)
    return case(x=d.normal(a, b), shape=ints(a, 1, 1, b))


@sample("Reshape")
def lined_up_nowhere(d: SampleDraw) -> Case:
    a, b = d.sizes(2)
    return case(x=d.normal(a, b), shape=ints(b, a))


@sample("Flatten", prunable="x[0] x[1] x[2] x[3] y[0] y[1]")
def flattened(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(4)))


@sample("Flatten", prunable="x[0] x[1] x[2] y[0] y[1]", since=11)
def flattened_counting_from_the_back(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(3)), axis=-1)


@sample("Flatten", prunable="x[0] x[1] x[2] y[1]")
def flattened_whole(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(3)), axis=0)


@sample("Squeeze", prunable="x[0] x[2] y[0] y[1]", until=12)
def squeezed_by_attribute(d: SampleDraw) -> Case:
    a, b = d.sizes(2)
    return case(x=d.normal(a, 1, b, 1), axes=[1, 3])


@sample("Squeeze", prunable="x[0] x[2] y[0] y[1]", since=13)
def squeezed_by_input(d: SampleDraw) -> Case:
    a, b = d.sizes(2)
    return case(x=d.normal(a, 1, b, 1), axes=ints(-3))


@sample("Squeeze", prunable="x[0] x[2] y[0] y[1]")
def squeezed_everywhere(d: SampleDraw) -> Case:
    a, b = d.sizes(2)
    return case(x=d.normal(a, 1, b, 1))


@sample("Squeeze")
def nothing_to_squeeze(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(2)))


@sample("Unsqueeze", prunable="x[0] x[1] y[0] y[2]", until=12)
def unsqueezed_by_attribute(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(2)), axes=[1, 3])


@sample("Unsqueeze", prunable="x[0] x[1] y[1] y[2]", since=13)
def unsqueezed_by_input(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(2)), axes=ints(-1, 0))


@sample("Transpose", prunable="x[0] x[1] x[2] x[3] y[0] y[1] y[2] y[3]")
def permuted(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(4)), perm=[2, 0, 3, 1])


@sample("Transpose", prunable="x[0] x[1] x[2] y[0] y[1] y[2]")
def reversed_axes(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(3)))


def _shape(x: Array, start: int = 0, end: int | None = None) -> Array:
    return np.array(x.shape[slice(start, end)], dtype=np.int64)


@sample("Shape", prunable="x[0] x[1]", reference=_shape, always=True)
def shape(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(2)))


@sample("Shape", prunable="x[0] x[1] x[2]", reference=_shape, always=True, since=15)
def part_of_shape(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(3)), start=-2, end=-1)


@sample("Size", prunable="x[0] x[1]", reference=lambda x: np.array(x.size), always=True)
def size(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(2)))


@sample("DepthToSpace", prunable="x[0] x[1] y[0] y[1]")
def blocks_outside_channels(d: SampleDraw) -> Case:
    n, c, h, w = d.sizes(4)
    return case(x=d.normal(n, 4 * c, h, w), blocksize=2)


@sample("DepthToSpace", prunable="x[0] x[1] y[0] y[1]", since=11)
def blocks_inside_channels(d: SampleDraw) -> Case:
    n, c, h, w = d.sizes(4)
    return case(x=d.normal(n, 4 * c, h, w), blocksize=2, mode="CRD")


@sample("SpaceToDepth", prunable="x[0] x[1] y[0] y[1]")
def blocks_into_channels(d: SampleDraw) -> Case:
    n, c, h, w = d.sizes(4)
    return case(x=d.normal(n, c, 2 * h, 2 * w), blocksize=2)


@sample("Expand", prunable="x[0] x[1] y[0] y[1] y[2]")
def expanded(d: SampleDraw) -> Case:
    n, c, h, w = d.sizes(4)
    return case(x=d.normal(n, c, 1, w), shape=ints(n, 1, h, w))


@sample("Expand", prunable="x[1] y[0] y[1] y[2]")
def expanded_to_higher_rank(d: SampleDraw) -> Case:
    n, c, h = d.sizes(3)
    return case(x=d.normal(1, c), shape=ints(n, h, c))


@sample("Expand", prunable="x[0] x[1] y[0] y[1] y[2]")
def expanded_by_lower_rank(d: SampleDraw) -> Case:
    n, c, h = d.sizes(3)
    return case(x=d.normal(n, c, 1), shape=ints(h))


@sample("Tile", prunable="x[0] x[1] y[0] y[1] y[2]")
def tiled(d: SampleDraw) -> Case:
    n, c, h = d.sizes(3)
    return case(x=d.normal(n, c, 1), repeats=ints(1, 2, h))


@sample("ConstantOfShape", prunable="y[0] y[1]", fed="")
def filled(d: SampleDraw) -> Case:
    value = onnx.numpy_helper.from_array(np.array([0.5], np.float32))
    return case(shape=ints(*d.sizes(2)), value=value)


@sample("RandomNormal", prunable="y[0] y[1]", until=21)
def normal_without_spread(d: SampleDraw) -> Case:
    return case(shape=d.sizes(2), mean=3.0, scale=1e-9)


@sample("RandomUniform", prunable="y[0] y[1]", until=21)
def uniform_without_spread(d: SampleDraw) -> Case:
    return case(shape=d.sizes(2), low=2.0, high=2.00001)


@sample("Trilu", prunable="x[0] x[1] y[0] y[1]")
def upper_triangle(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(4)), k=np.array(1))


@sample("Trilu", prunable="x[0] y[0]")
def lower_triangle(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(3)), upper=0)


# What comes out as positions or selections keeps every size.


def _scalars(*values: float) -> dict[str, Any]:
    return {f"x{index}": np.array(value, np.float32) for index, value in enumerate(values)}


@sample("Range", fed="")
def counted(d: SampleDraw) -> Case:
    return case(**_scalars(0, 7, 2))


@sample("EyeLike", until=21)
def identity_matrix(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(2)))


@sample("NonZero", "Unique")
def found_by_value(d: SampleDraw) -> Case:
    return case(x=d.integers(2, *d.sizes(2)).astype(np.float32))


@sample("Multinomial", until=21)
def drawn_at_random(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(2)), sample_size=4, seed=1.0)


@sample("Constant", since=12)
def constant(d: SampleDraw) -> Case:
    return case(value_floats=[1.0, 2.0, 3.0])


@sample("NonMaxSuppression", fed="boxes scores")
def boxes(d: SampleDraw) -> Case:
    n, c, b = d.sizes(3)
    return case(boxes=d.positive(n, b, 4), scores=d.positive(n, c, b), most=np.array([3]))


@sample("Compress", fed="x condition")
def compressed(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, c), condition=d.bools(c), axis=1)


@sample("Det", until=21)
def determinant(d: SampleDraw) -> Case:
    n, m = d.sizes(2)
    return case(x=d.normal(n, m, m))


test_rule = oracle(__name__)
