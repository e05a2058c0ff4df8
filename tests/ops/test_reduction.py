"""Reductions, and operators that order or select along an axis, against the rule oracle."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.rule_oracle import Array, Case, SampleDraw, case, ints, oracle, sample

_SUMS = ["ReduceSumSquare", "ReduceL1", "ReduceL2"]
_STATISTICS = {"ReduceMean": np.mean, "ReduceMax": np.max, "ReduceMin": np.min}
_FIXED = ["ReduceProd", "ReduceLogSum", "ReduceLogSumExp"]


# Sums: what is zero adds nothing.


@sample("ReduceSum", prunable="x[0] x[1] x[2] y[0]", until=12)
@sample(*_SUMS, prunable="x[0] x[1] x[2] y[0]", until=17)
def summed_by_attribute(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(3)), axes=[1, 2], keepdims=0)


@sample("ReduceSum", prunable="x[0] x[1] x[2] y[0] y[2]", since=13)
@sample(*_SUMS, prunable="x[0] x[1] x[2] y[0] y[2]", since=18)
def summed_by_input(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(3)), axes=ints(-2))


@sample("ReduceSum", *_SUMS, prunable="x[0] x[1] x[2]")
def summed_whole(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(3)), keepdims=0)


@sample("ReduceSum", prunable="x[0] x[1] y[0] y[1]", since=13)
@sample(*_SUMS, prunable="x[0] x[1] y[0] y[1]", since=18)
def summed_over_no_axes(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(2)), axes=ints(), noop_with_empty_axes=1)


@sample("ReduceSum", prunable="x[0] x[1] y[0] y[1]", since=13)
def summed_over_no_axes_given(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(2)), noop_with_empty_axes=1)


# Statistics: the ones of the units that stay.


def _statistic(function: Any) -> Any:
    def statistic(x: Array, axes: Any = None, keepdims: int = 1, **_: Any) -> Array:
        chosen = None if axes is None or len(axes) == 0 else tuple(int(axis) for axis in axes)
        return np.asarray(function(x, axis=chosen, keepdims=bool(keepdims)))

    return statistic


def by_attribute(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(3)), axes=[1, 2], keepdims=0)


def by_input(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(3)), axes=ints(-2, 0))


def whole(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(2)))


for _op, _function in _STATISTICS.items():
    _reference = _statistic(_function)
    sample(_op, prunable="x[0] x[1] x[2] y[0]", until=17, reference=_reference)(by_attribute)
    sample(_op, prunable="x[0] x[1] x[2] y[2]", since=18, reference=_reference)(by_input)
    sample(_op, prunable="x[0] x[1]", reference=_reference)(whole)


# Results that depend on every entry.


@sample(*_FIXED, prunable="x[0] y[0]", until=17)
def fixed_by_attribute(d: SampleDraw) -> Case:
    return case(x=d.positive(*d.sizes(3)), axes=[1, 2], keepdims=0)


@sample(*_FIXED, prunable="x[0] x[2] y[2]", since=18)
def fixed_by_input(d: SampleDraw) -> Case:
    return case(x=d.positive(*d.sizes(3)), axes=ints(-2))


@sample("ArgMax", "ArgMin", prunable="x[1] x[2] y[1] y[2]")
def first_axis(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(3)))


@sample("ArgMax", "ArgMin", prunable="x[0] x[2] y[0] y[1]", since=11)
def inner_axis_dropped(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(3)), axis=-2, keepdims=0)


@sample("TopK", prunable="x[0] x[1] y[0] y[1] places[0]", outputs="y places", until=9)
def best_by_attribute(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, c, 7), k=3)


@sample("TopK", prunable="x[0] x[2] y[0] y[2] places[2]", outputs="y places", since=10)
def best_by_input(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, 7, c), k=ints(3), axis=1)


@sample("TopK", prunable="x[0] x[1] y[0] y[1]", outputs="y places", since=11)
def smallest(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, c, 7), k=ints(3), largest=0, axis=-1)


@sample("CumSum", prunable="x[0] x[2] y[0] y[2]")
def running_sum(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(3)), axis=np.array(-2), exclusive=1)


@sample("CumProd", prunable="x[0] x[2] y[0] y[2]", runtime="onnx")
def running_product(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(3)), axis=np.array(1))


@sample("CumSum", fed="x axis")
def along_an_axis_known_only_when_run(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(2)), axis=np.array(1))


test_rule = oracle(__name__)
