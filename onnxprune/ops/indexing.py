"""Operators that take parts of axes or put them together: Concat, Split, Slice, Pad, Gather, Scatter."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from onnxprune.dims import Atom, Dim, concat, permuted, product
from onnxprune.ops.base import Array, Op, RefuseError, is_frozen, rule
from onnxprune.ops.evaluate import is_filled_with_zeros, slice_arguments

# A constant selection that falls into more runs than this is treated as arbitrary.
_MAX_RUNS = 64


@rule("Concat")
def concatenate(op: Op) -> None:
    """One after the other along `axis`; the other axes are the same."""
    y = op.y[0]
    axis = op.axis()
    for x in op.x:
        for i, dim in enumerate(x):
            if i != axis:
                op.same(y[i], dim)
    op.same(y[axis], concat(*[x[axis] for x in op.x]))
    op.free(*[x[axis] for x in op.x])


@rule("Split")
def split(op: Op) -> None:
    """Cut at the sizes given, or into equal parts: those then get sizes of their own."""
    x = op.x[0]
    axis = op.axis()
    rest: Dim = x[axis]
    slot: int | str = 1 if op.opset >= 13 else "split"
    for index, y in enumerate(op.y):
        for i, dim in enumerate(y):
            if i != axis:
                op.same(dim, x[i])
        part, rest = op.cut(rest, y[axis].size)
        op.same(y[axis], part)
        op.names(slot, index, y[axis], x[axis], dropping="num_outputs")


@rule("Slice")
def slice_(op: Op) -> None:
    """Ranges with constant bounds are cuts; whole axes are factored by strides, permuted backwards; others freeze."""
    x, y = op.x[0], op.y[0]
    bounds = [op.const(i) for i in range(1, len(op.node.inputs))]
    by_input = len(op.node.inputs) > 1
    if by_input and op.has(3) and bounds[2] is None:
        raise RefuseError("axes that are computed")
    if by_input and (bounds[0] is None or bounds[1] is None or (op.has(4) and bounds[3] is None)):
        chosen = bounds[2] if len(bounds) > 2 else None
        axes = list(range(len(x))) if chosen is None else [int(axis) % len(x) for axis in chosen.ravel()]
        sliced = set(axes)
    else:
        starts, ends, axes, steps = slice_arguments(op.node, tuple(bounds), len(x))
        sliced = set()
        for index, axis in enumerate(axes):
            if not _slice_axis(op, axis, index, starts[index], ends[index], steps[index]):
                sliced.add(axis)
    for axis in sliced:
        op.freeze(x[axis], "sliced with bounds that are computed at run time, or backwards")
    for axis, dim in enumerate(x):
        if axis not in axes:
            op.same(y[axis], dim)


def _slice_axis(op: Op, axis: int, index: int, start: int, end: int, step: int) -> bool:
    """State one sliced axis; False when the form is not supported."""
    x, y = op.x[0][axis], op.y[0][axis]
    first, stop, _ = slice(start, end, step).indices(x.size)
    if step == 1:
        before, rest = op.cut(x, min(first, stop))
        part, _ = op.cut(rest, max(stop - first, 0))
        op.same(y, part)
        if (first, stop) != (0, x.size) or end <= x.size:
            op.names(op.slot(1, "starts"), index, before, x)
            op.names(op.slot(2, "ends"), index, concat(before, part), x)
        return True
    if (step, first, stop) == (-1, x.size - 1, -1):
        op.same(y, permuted(x, np.arange(x.size)[::-1]))
        op.free(x)
        op.names(op.slot(1, "starts"), index, x)  # past the last entry is as good as at it
        return True
    if step > 1 and x.size % step == 0 and first < step and y.size == x.size // step:
        outer, inner = op.factor(x, y.size)
        op.freeze(inner, "read with a stride")
        op.same(y, outer)
        op.names(op.slot(1, "starts"), index, op.cut(inner, first)[0], x)  # it may have been counted from the end
        return True
    return False


@rule("Pad")
def pad(op: Op) -> None:
    """Constant padding adds entries before and after; other modes copy entries by position, so the axis stays."""
    x, y = op.x[0], op.y[0]
    slot = op.slot(1, "pads")
    if slot == 1 and not op.has(1):
        slot = "paddings"
    pads = op.const(slot)
    if pads is None or (op.has(3) and op.const(3) is None):
        amounts = op.entries(1) if slot == 1 and not op.has(3) else []
        for axis, (dim, padded) in enumerate(zip(x, y, strict=True)):
            if len(amounts) == 2 * len(x) and amounts[axis] == amounts[axis + len(x)] == 0:
                op.same(dim, padded)
            elif dim.size == padded.size:
                op.freeze(dim, "padded by an amount computed at run time")
        return
    given = op.const(3)
    axes = list(range(len(x))) if given is None else [int(axis) % len(x) for axis in given]
    for axis, (dim, padded) in enumerate(zip(x, y, strict=True)):
        if axis not in axes:
            op.same(dim, padded)
            continue
        place = axes.index(axis)
        before, after = int(pads[place]), int(pads[place + len(axes)])
        if before == after == 0:
            op.same(dim, padded)
        elif min(before, after) < 0 or op.attr("mode", "constant") != "constant":
            op.freeze(dim, "cropped, or padded with copies of itself")
        else:
            _pad_axis(op, slot, (place, place + len(axes)), (before, after), dim, padded)


def _pad_axis(op: Op, slot: int | str, places: tuple[int, int], sizes: tuple[int, int], x: Atom, y: Atom) -> None:
    front, back = Atom(sizes[0]), Atom(sizes[1])
    op.same(y, concat(front, x, back))
    op.free(x)
    for place, added in zip(places, (front, back), strict=True):
        op.names(slot, place, added, y)


@rule("Gather")
def gather(op: Op) -> None:
    """The axis becomes the axes of the indices; constant indices select known units, others freeze the axis."""
    x, indices, y = op.x[0], op.x[1], op.y[0]
    axis = op.axis()
    op.same_all(y[:axis], x[:axis])
    op.same_all(y[axis + len(indices) :], x[axis + 1 :])
    picked = y[axis : axis + len(indices)]
    positions = op.const(1)
    if positions is not None and not is_frozen(x[axis]) and _gather_known(op, x[axis], positions, picked):
        return
    op.freeze(x[axis], "entries are looked up by data")
    op.same_all(picked, indices)


def _gather_known(op: Op, dim: Atom, positions: Array, picked: list[Atom]) -> bool:
    selected = select(op, dim, positions.ravel() % dim.size)
    if selected is None:
        return False
    op.free(dim, *picked)
    if picked:
        op.same(product(*picked), selected)
    op.indexes(1, dim, picked)
    return True


def select(op: Op, dim: Dim, positions: Array) -> Dim | None:
    """The entries of `dim` at constant positions, as pieces of it; None when they form too many runs.

    All entries in another order are one piece, however many runs that makes.
    """
    if np.array_equal(np.sort(positions), np.arange(dim.size)):
        return permuted(dim, positions)
    breaks = np.flatnonzero(np.diff(positions) != 1) + 1
    runs = np.split(positions, breaks)
    if len(runs) > _MAX_RUNS:
        return None
    edges = sorted({0, dim.size, *(int(run[0]) for run in runs), *(int(run[-1]) + 1 for run in runs)})
    pieces: dict[int, Dim] = {}
    rest = dim
    for start, stop in pairwise(edges):
        pieces[start], rest = op.cut(rest, stop - start)
    return concat(*[pieces[edge] for run in runs for edge in edges if run[0] <= edge <= run[-1]])


@rule("GatherElements", "ScatterElements", "Scatter")
def along_axis(op: Op) -> None:
    """Entries move along one axis by data; the other axes pass where they are read or written whole."""
    axis = op.axis()
    for i, dims in enumerate(zip(*op.x, op.y[0], strict=True)):
        if i != axis and len({dim.size for dim in dims}) == 1:
            for dim in dims[1:]:
                op.same(dims[0], dim)


@rule("ScatterND")
def scatter_nd(op: Op) -> None:
    """Slices along the leading axes are replaced: those keep their sizes, the trailing ones pass through."""
    x, indices, updates, y = op.x[0], op.x[1], op.x[2], op.y[0]
    depth = indices[-1].size
    for axis in range(depth, len(x)):
        op.same(y[axis], x[axis])
        op.same(updates[len(indices) - 1 + axis - depth], x[axis])
    data, places = op.node.inputs[:2]
    if data is not None and is_filled_with_zeros(data) and places is not None and places.const_value is not None:
        for axis, dim in enumerate(indices[:-1]):  # what is not written is zero, as if the update had been
            op.contract(2, axis)
            op.same(updates[axis], dim)


@rule("GatherND")
def gather_nd(op: Op) -> None:
    """Slices along the leading axes are looked up: the trailing ones pass through."""
    x, indices, y = op.x[0], op.x[1], op.y[0]
    batch = int(op.attr("batch_dims", 0))
    depth = batch + indices[-1].size
    for axis in range(depth, len(x)):
        op.same(y[len(indices) - 1 + axis - depth], x[axis])
    for axis in range(batch, len(indices) - 1):
        op.same(y[axis], indices[axis])


@rule("OneHot")
def one_hot(op: Op) -> None:
    """A new axis of classes; the others are those of the indices."""
    y = list(op.y[0])
    y.pop(op.axis(default=-1, rank=len(y)))
    op.same_all(y, op.x[0])


@rule("ReverseSequence")
def reverse_sequence(op: Op) -> None:
    """Time is reversed per sequence; batch and features pass through."""
    time, batch = int(op.attr("time_axis", 0)), int(op.attr("batch_axis", 1))
    for axis, (x, y) in enumerate(zip(op.x[0], op.y[0], strict=True)):
        op.same(x, y)
        if axis in (time, batch):
            op.freeze(x, "time and batch keep their places")
