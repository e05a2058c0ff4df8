"""Reductions over axes, and operators that order or select along one."""

from __future__ import annotations

from collections.abc import Callable

from onnxprune.ops.base import Op, RefuseError, rule


def reducing(*names: str, over: Callable[[Op, int], None]) -> None:
    """Register reductions; `over(op, axis)` says what summarizing axis `axis` of the input means for its units."""

    def reduce(op: Op) -> None:
        x, y = op.x[0], op.y[0]
        axes = _axes(op)
        kept = [axis for axis in range(len(x)) if axis not in axes]
        for axis in axes:
            over(op, axis)
        if len(y) == len(x):
            for axis in kept:
                op.same(y[axis], x[axis])
        else:
            for axis, dim in zip(kept, y, strict=True):
                op.same(dim, x[axis])

    rule(*names)(reduce)


def _axes(op: Op) -> set[int]:
    rank = len(op.x[0])
    given = op.const(op.slot(1, "axes"))
    if given is None and op.has(1):
        raise RefuseError("axes that are computed")
    if given is None or given.size == 0:
        return set() if op.attr("noop_with_empty_axes", 0) else set(range(rank))
    return {int(axis) % rank for axis in given.ravel()}


def summed(op: Op, axis: int) -> None:
    """A unit that is zero adds nothing."""
    op.contract(0, axis)


def statistic(op: Op, axis: int) -> None:
    """A mean or an extreme of the units: allowed, and marked, as for norms."""
    op.free(op.x[0][axis])
    op.tag("statistics", op.x[0][axis])
    if op.node.op_type == "ReduceMean" and axis == len(op.x[0]) - 1:
        op.tag("normalized", op.x[0][axis])


def fixed(op: Op, axis: int) -> None:
    """Every entry takes part in the result in a way that cannot be taken away."""
    op.freeze(op.x[0][axis], "the result depends on every entry along it")


reducing("ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", over=summed)
reducing("ReduceMean", "ReduceMax", "ReduceMin", over=statistic)
reducing("ReduceProd", "ReduceLogSum", "ReduceLogSumExp", over=fixed)


@rule("ArgMax", "ArgMin")
def arg_extreme(op: Op) -> None:
    """Positions along the axis come out as data."""
    x, y = list(op.x[0]), list(op.y[0])
    axis = op.axis()
    op.freeze(x.pop(axis), "positions along it are an output")
    if len(y) > len(x):
        y.pop(axis)
    op.same_all(y, x)


@rule("TopK")
def top_k(op: Op) -> None:
    """A selection along one axis; both outputs."""
    axis = op.axis(default=-1)
    op.freeze(op.x[0][axis], "entries along it compete")
    for y in op.y:
        for i, dim in enumerate(y):
            if i != axis:
                op.same(dim, op.x[0][i])


@rule("CumSum", "CumProd")
def cumulative(op: Op) -> None:
    """Every entry reads those before it."""
    axis = op.const(1)
    op.same_all(op.y[0], op.x[0])
    for i, dim in enumerate(op.x[0]):
        if axis is None or i == int(axis.item()) % len(op.x[0]):
            op.freeze(dim, "every entry along it reads those before it")
