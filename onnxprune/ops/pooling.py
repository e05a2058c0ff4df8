"""Pooling, resizing and sampling: batch and channels pass through, spatial axes keep their sizes."""

from __future__ import annotations

from onnxprune.ops.base import Op, RefuseError, rule


@rule("AveragePool", "MaxPool", "LpPool")
def windows(op: Op) -> None:
    """Batch and channels pass through. A window as large as its axis sums that up; others keep their axes whole."""
    x, y = op.x[0], op.y[0]
    op.same_all(y[:2], x[:2])
    for axis in range(2, len(x)):
        if _covers(op, axis):
            _sum_up(op, axis)
            op.names("kernel_shape", axis - 2, x[axis])
    if len(op.y) > 1 and op.y[1]:
        if not _only_to_undo(op):
            raise RefuseError("places counted over all channels are an output")
        op.same_all(op.y[1][:2], x[:2])


def _covers(op: Op, axis: int) -> bool:
    """Is the window along a spatial axis the whole of it, and nothing around?"""
    plain = op.attr("auto_pad", "NOTSET") in ("NOTSET", "VALID") and not any(op.attr("pads", []))
    plain &= all(each == 1 for each in op.attr("dilations", []))
    return bool(plain and op.y[0][axis].size == 1 and op.attr("kernel_shape")[axis - 2] == op.x[0][axis].size > 1)


def _only_to_undo(op: Op) -> bool:
    """Does nothing read the places but what puts values back there? The count of channels is then on both sides."""
    places = op.node.outputs[1]
    back = all(reader.op_type == "MaxUnpool" and slot == 1 for reader, slot in places.uses())
    return back and not places.is_graph_output() and (not places.uses() or not op.attr("storage_order", 0))


@rule("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def whole_axes(op: Op) -> None:
    """A mean, an extreme or a norm over every axis but batch and channels, as reductions are."""
    op.same_all(op.y[0][:2], op.x[0][:2])
    for axis in range(2, len(op.x[0])):
        _sum_up(op, axis)


def _sum_up(op: Op, axis: int) -> None:
    """A unit that is zero adds nothing to a norm; of a mean or an extreme it is one of the statistics."""
    x = op.x[0][axis]
    op.free(op.y[0][axis])
    if op.node.op_type in ("LpPool", "GlobalLpPool"):
        op.contract(0, axis)
        return
    op.free(x)
    op.tag("statistics", x)
    if op.node.op_type in ("AveragePool", "GlobalAveragePool") and axis == len(op.x[0]) - 1:
        op.tag("normalized", x)


@rule("MaxUnpool")
def max_unpool(op: Op) -> None:
    """Values go back to the places of a MaxPool, counted over all channels of a tensor as large as the output.

    Elsewhere every axis keeps its size (the driver freezes what is not mentioned).
    """
    x, places, y = op.x[0], op.x[1], op.y[0]
    pool = op.node.inputs[1].producer() if op.node.inputs[1] is not None else None
    pooled = op.dims_of(pool.inputs[0]) if pool is not None and pool.op_type == "MaxPool" else []
    if [dim.size for dim in pooled[1:]] != [dim.size for dim in y[1:]]:
        return
    op.same_all(y[:2], x[:2])
    op.same_all(places[:2], x[:2])
    op.same_all(pooled[1:2], x[1:2])
    if op.has(2):
        for axis in (0, 1):
            op.names(2, axis, y[axis])


@rule("GridSample")
def grid_sample(op: Op) -> None:
    """Every image of the batch has its grid; channels pass through."""
    op.same_all(op.y[0][:2], op.x[0][:2])
    op.same(op.x[1][0], op.x[0][0])


@rule("MaxRoiPool", "RoiAlign")
def roi(op: Op) -> None:
    """Regions replace the batch; channels pass through."""
    op.same(op.y[0][1], op.x[0][1])


@rule("Resize", "Upsample")
def resize(op: Op) -> None:
    """Axes whose size does not change pass through; entries of `sizes` follow them."""
    x, y = op.x[0], op.y[0]
    if op.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise RefuseError("regions are cropped")
    old = op.node.op_type == "Upsample" or op.opset < 11
    axes = [axis % len(x) for axis in op.attr("axes") or range(len(x))]
    for axis in range(len(x)):
        if x[axis].size != y[axis].size:
            continue
        if axis < 2:
            op.same(x[axis], y[axis])
        if not old and op.has(3) and axis in axes:
            op.names(3, axes.index(axis), y[axis])
